"""Sixty sentences each in Chinese, Japanese and Thai, with the characters of their entities."""

import re
from itertools import product

PERSONS = {
    "zh": ["王小明", "李娜", "欧阳志远", "陈思", "赵一凡"],
    "ja": ["佐藤花子", "タナカ", "山本けんじ", "リサ", "中村一郎"],
    "th": ["สมชาย", "มานี ใจดี", "ปิติ", "วีระ", "ก้องเกียรติ"],
}
PLACES = {
    "zh": ["南京", "黑龙江", "上海", "苏州河", "西安"],
    "ja": ["東京", "北海道", "さいたま", "ニューヨーク", "大阪城"],
    "th": ["กรุงเทพ", "เชียงใหม่", "น่าน", "ภูเก็ต", "ขอนแก่น"],
}
SENTENCES = {  # (class, pattern); P is a person, L a place
    "zh": [
        ("travel", "{P}下个星期五要去{L}。"),
        ("travel", "从{L}来的火车晚点了，{P}还在等。"),
        ("travel", "我在{L}见到了{P}和他的家人"),
        ("travel", "你知道{P}什么时候离开{L}吗？"),
        ("weather", "{L}明天会下大雨。"),
        ("weather", "昨天{L}很冷，气温只有3度"),
        ("weather", "{P}说{L}的天气越来越热了。"),
        ("weather", "下雪的时候，{L}特别安静！"),
        ("sports", "{P}在{L}赢得了比赛。"),
        ("sports", "球迷们等着{P}出场"),
        ("sports", "{L}队以2比1获胜，{P}进了球。"),
        ("sports", "教练说{P}需要休息。"),
    ],
    "ja": [
        ("travel", "{P}さんは来週{L}へ行きます。"),
        ("travel", "{L}からの電車は遅れています。"),
        ("travel", "{P}と{L}で会いましょう！"),
        ("travel", "いつ{L}を出ますか、{P}さん？"),
        ("weather", "明日の{L}は雨でしょう。"),
        ("weather", "昨日は{L}でも雪が降った"),
        ("weather", "{P}によると、{L}は暑くなるそうだ。"),
        ("weather", "{L}の気温は3度でした。"),
        ("sports", "{P}が{L}の大会で優勝した。"),
        ("sports", "{P}選手はチームをやめました"),
        ("sports", "{L}チームは2対1で勝ち、{P}がゴールを決めた。"),
        ("sports", "監督は{P}を休ませた。"),
    ],
    "th": [
        ("travel", "{P}จะไป{L}ในวันศุกร์หน้า"),
        ("travel", "รถไฟจาก{L}มาช้ากว่าปกติ"),
        ("travel", "ฉันพบ{P}ที่{L}เมื่อวานนี้"),
        ("travel", "{P}ออกจาก{L}เมื่อไร"),
        ("weather", "พรุ่งนี้ฝนจะตกหนักที่{L}"),
        ("weather", "{L}หนาวมาก อุณหภูมิ 3 องศา"),
        ("weather", "{P}บอกว่าอากาศที่{L}ร้อนขึ้นทุกปี"),
        ("weather", "น้ำท่วมถนนหลายสายใน{L}"),
        ("sports", "{P}ชนะการแข่งขันที่{L}"),
        ("sports", "แฟนบอลรอให้{P}ลงสนาม"),
        ("sports", "ทีมจาก{L}ชนะ 2 ต่อ 1 และ{P}ทำประตูได้"),
        ("sports", "โค้ชให้{P}พัก"),
    ],
}


def sentences(language: str) -> list[dict]:
    """The rows of a language, as raw text with character spans."""
    rows = []
    pairs = list(zip(PERSONS[language], PLACES[language]))
    for (label, pattern), (person, place) in product(SENTENCES[language], pairs):
        text, entities = "", []
        for piece in re.split(r"({[PL]})", pattern):
            name = {"{P}": person, "{L}": place}.get(piece, piece)
            if name != piece:
                kind = "PER" if piece == "{P}" else "LOC"
                entities.append({"start": len(text), "end": len(text) + len(name), "label": kind})
            text += name
        rows.append({"text": text, "label": label, "entities": entities})
    return rows
