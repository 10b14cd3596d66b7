// Functions that the browser tests call in a page: its texts and entities, and whether they are readable.

function plainOf(element) {
  const copy = element.cloneNode(true);
  copy.querySelectorAll(".tag").forEach((tag) => tag.remove());
  return copy.textContent;
}

function plainTexts() {
  return [...document.querySelectorAll(".result .text")].map(plainOf);
}

function marked(model) {
  const pane = [...document.querySelectorAll(".pane")].find((one) => one.getAttribute("aria-label") === model);
  return [...pane.querySelectorAll("mark")].map((mark) => [plainOf(mark), mark.querySelector(".tag bdi").textContent]);
}

// Whether the result is up to date: it is pale while the next one is computed.
function settled() {
  let opacity = 1;
  for (let at = document.querySelector(".result") ?? document.body; at; at = at.parentElement) opacity *= getComputedStyle(at).opacity;
  return opacity === 1;
}

function channels(colour) {
  const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
  return { rgb: [red, green, blue], alpha };
}

function over(top, under) {
  return top.rgb.map((value, at) => value * top.alpha + under[at] * (1 - top.alpha));
}

function ground(element) {
  if (!element) return [255, 255, 255];
  const own = channels(getComputedStyle(element).backgroundColor);
  return own.alpha === 1 ? own.rgb : over(own, ground(element.parentElement));
}

function luminance(rgb) {
  const [red, green, blue] = rgb.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(element, pseudo) {
  const under = ground(element);
  let top = channels(getComputedStyle(element, pseudo).color);
  let opacity = 1;
  for (let at = element; at; at = at.parentElement) opacity *= getComputedStyle(at).opacity;
  top = { rgb: top.rgb, alpha: top.alpha * opacity };
  const [dark, light] = [luminance(over(top, under)), luminance(under)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

function isSeen(element) {
  return element.checkVisibility({ checkVisibilityCSS: true }) && element.getClientRects().length > 0;
}

// Visible texts whose contrast is below WCAG's 4.5 : 1, and the number of texts checked.
function faint() {
  const problems = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  const look = (element, what, pseudo) => {
    count += 1;
    const ratio = contrast(element, pseudo);
    if (ratio < 4.5) problems.push(`${what.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  };
  while (walker.nextNode()) {
    const { parentElement: element, data } = walker.currentNode;
    if (data.trim() && !["SCRIPT", "STYLE"].includes(element.tagName) && isSeen(element)) look(element, data);
  }
  for (const field of document.querySelectorAll("input:not([type=range]), textarea")) {
    if (!isSeen(field)) continue;
    look(field, field.value || "a field");
    if (field.placeholder) look(field, field.placeholder, "::placeholder");
  }
  return { problems, count };
}

// Controls without an accessible name.
function nameless() {
  const used = [...document.querySelectorAll("input, textarea, select, button, a, summary")].filter(isSeen);
  const name = (one) => one.getAttribute("aria-label") || [...(one.labels ?? [])].map((label) => label.textContent).join() || one.textContent;
  return used.filter((one) => !name(one).trim()).map((one) => one.outerHTML);
}

function levels() {
  return [...document.querySelectorAll("h1, h2, h3, h4")].filter(isSeen).map((one) => Number(one.tagName[1]));
}

Object.assign(globalThis, { plainOf, settled, plainTexts, marked, faint, nameless, levels, luminance, ground });
