from multitask.config.loading import load_settings
from multitask.training.preparation import prepare


def test_each_row_of_train_knows_its_file(settings_for, rows, write_rows):
    config, *overrides = settings_for
    first, second = write_rows("z.jsonl", rows[:3]), write_rows("a.jsonl", rows[3:])
    settings = load_settings(
        config.removeprefix("--config="), [*overrides, f"data.train=[{first}, {second}]"]
    )
    files = prepare(settings).corpora["train"].file_of_row
    assert list(files) == [0] * 3 + [1] * (len(rows) - 3)
