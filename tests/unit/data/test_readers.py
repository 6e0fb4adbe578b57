import pytest

from sampan.data import readers
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
