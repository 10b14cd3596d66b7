from multitask.config import load_settings
from multitask.preparation import file_of_row, prepare


def test_each_row_of_train_knows_its_file(settings_for, rows, write_rows):
    config, *overrides = settings_for
    first, second = write_rows("z.jsonl", rows[:3]), write_rows("a.jsonl", rows[3:])
    settings = load_settings(
        config.removeprefix("--config="), [*overrides, f"data.train=[{first}, {second}]"]
    )
    files = file_of_row(prepare(settings))
    assert len(files) == len(rows)
    assert len(set(files[:3])) == len(set(files[3:])) == 1
    assert files[0] != files[3]
