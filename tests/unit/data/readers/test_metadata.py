"""Columns of any name in metadata.jsonl and metadata.csv."""

import pytest

from sampan.data.readers import Columns
from sampan.data.readers.image_folder import read
from unit.data.readers.picture_folder import captions, describe, refused


def test_a_picture_column_that_is_called_image(folder):
    (folder / "metadata.csv").write_text('image,prompt\na.png,"a dog, red"\nsub/c.jpg,c\n')
    columns = Columns(image="image", captions=("prompt",))
    assert captions(folder, columns=columns) == {"a.png": ("a dog, red",), "sub/c.jpg": ("c",)}
    because = (
        "  because metadata.csv has no column `file_name`, which names the picture, and no column `text`, which has the "
        "caption\n  because its columns are `image`, `prompt`\n\n"
        'hint: say which they are: data.image_column = "image", data.caption_columns = ["prompt"]'
    )
    assert refused(folder) == f"error: picture folder `{folder}` cannot be read\n{because}"
    (folder / "metadata.csv").unlink()
    describe(folder, {"image": "a.png", "prompt": "a dog, red"}, {"image": "sub/c.jpg", "prompt": "c"})
    assert captions(folder, columns=columns) == {"a.png": ("a dog, red",), "sub/c.jpg": ("c",)}
    assert refused(folder) == f"error: picture folder `{folder}` cannot be read\n" + because.replace(
        "metadata.csv", "metadata.jsonl"
    ).replace("column `", "field `").replace("columns are", "fields are")
    assert refused(folder, columns=Columns(image="picture")).startswith(
        f"error: `picture` is not a field of `{folder / 'metadata.jsonl'}`\n  because its fields are `image`, `prompt`"
    )
    assert refused(folder, columns=Columns("image", ("promt",))).endswith("hint: did you mean `prompt`?")


def test_an_image_column_beside_file_name(folder):
    describe(folder, {"file_name": "a.png", "image": "b.png", "text": "x"})
    assert list(captions(folder)) == ["a.png"]
    assert list(captions(folder, columns=Columns(image="image"))) == ["b.png"]


def test_a_job_with_the_old_defaults_written_out_reads_the_same(folder):
    describe(folder, {"file_name": "a.png", "text": "one", "texts": {"pt": "um"}})
    old = Columns(image="image", captions=("text",))
    assert read(folder, columns=old) == read(folder)
    assert captions(folder) == {"a.png": ("one", "um")}


def test_names_of_columns_have_neither_blanks_nor_case(folder):
    (folder / "metadata.csv").write_text(' File_Name , Text ,TEXT_PT\n a.png , "one, two" , um\nb.png, bee,\n')
    assert captions(folder) == {"a.png": ("one, two", "um"), "b.png": ("bee",)}
    assert list(captions(folder, columns=Columns(captions=("Text_pt",)))) == ["a.png"]
    (folder / "metadata.csv").unlink()
    describe(
        folder, {"File_Name": "a.png", " Prompt": "one"}, {"file_name": "b.png", "FILE_NAME": "a.png", "prompt": "b"}
    )
    assert captions(folder, columns=Columns(captions=("PROMPT",))) == {"a.png": ("one",), "b.png": ("b",)}


@pytest.mark.parametrize("sign", [";", "\t"])
def test_a_table_without_commas_is_told(folder, sign):
    (folder / "metadata.csv").write_text(f"file_name{sign}text\na.png{sign}x\n")
    assert refused(folder).endswith(f"hint: put commas between columns; the first line has {sign!r}")
