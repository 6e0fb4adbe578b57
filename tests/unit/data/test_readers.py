import pytest

from sampan.data import readers
from sampan.data.readers import BadRow, Report
from sampan.errors import JobError


@pytest.mark.parametrize("name", readers.READERS)
def test_every_reader_in_the_table_is_there(name):
    assert callable(readers.get(name))


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(JobError) as caught:
        readers.get("imagefolder")
    assert str(caught.value) == (
        "error: `data.reader = 'imagefolder'` is not a reader\n\nhint: did you mean `image_folder`?"
    )


def test_report_counts():
    assert Report(0, ()).bad_share == 0
    assert Report(4, (BadRow("metadata.jsonl:2", "no caption"),)).bad_share == 0.25
    assert str(BadRow("metadata.jsonl:2", "no caption")) == "metadata.jsonl:2: no caption"
