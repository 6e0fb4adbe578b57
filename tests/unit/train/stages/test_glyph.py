from types import SimpleNamespace

import numpy as np
import pytest

from sampan import frameworks
from sampan.models import presets
from sampan.models.text import GLYPH_BYTE_OFFSET, GLYPH_EOS_ID, GLYPH_PAD_ID
from sampan.samplers import noise
from sampan.synthetic.signs.split import is_test_word
from sampan.synthetic.text_rendering import HELD_OUT_FONTS, TRAIN_FONTS

frameworks.use("torch")

from sampan.frameworks import device as dev  # noqa: E402
from sampan.frameworks.torch import io, train_step  # noqa: E402
from sampan.models.init import initial_weights  # noqa: E402
from sampan.train.stages import glyph  # noqa: E402

CAPTION = 'a red board with "KAFFEE" and "Água 3", beside a very long "inscription that nobody could draw"'


def context(batch=8, steps=40, captions=()):
    samples = [SimpleNamespace(captions=(text,)) for text in captions]
    return SimpleNamespace(
        settings=SimpleNamespace(
            num_steps=steps, micro_batch_size=batch, grad_accum_steps=1, temperature=0.07, place_weight=1.0
        ),
        config=presets.get("nano"),
        seed=0,
        samples=samples,
        members=list(range(len(samples))),
        device="cpu",
        rows=lambda micro: range(micro * batch, (micro + 1) * batch),
        block=lambda step, micro: step + micro,
    )


def ready(stage):
    shapes = {name: tuple(p.shape) for name, p in stage.module.named_parameters()}
    io.load_weights(stage.module, {}, arrays=initial_weights(shapes, 0), device="cpu", dtype="fp32")
    return train_step.TrainStep(
        stage.module,
        lr=2e-3,
        beta1=0.9,
        beta2=0.99,
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.0,
        autocast="fp32",
    )


def test_a_row_is_drawn_by_its_own_key():
    few, many = (glyph.make(context(batch=size)).draw(3, 0) for size in (4, 8))
    assert few.keys == many.keys[:4]
    assert np.array_equal(few.arrays[4], many.arrays[4][:4])
    second = glyph.make(context(batch=4)).draw(3, 1)
    assert second.keys == many.keys[4:]
    assert glyph.make(context(batch=4)).draw(4, 0).keys != few.keys


def test_words_are_those_of_the_training_side_and_of_the_captions():
    stage = glyph.make(context(batch=64, captions=[CAPTION]))
    seen = [key for step in range(4) for key in stage.draw(step, 0).keys]
    assert {"KAFFEE", "Água 3"} <= set(seen)
    assert "inscription that nobody could draw" not in seen
    captioned = {word for word in ("KAFFEE", "Água", "3") if is_test_word(word)}  # these are trained on all the same
    assert not [word for text in seen for word in text.split(" ") if is_test_word(word) and word not in captioned]


def test_about_half_of_the_pairs_differ_by_little():
    keys = glyph.make(context(batch=128)).draw(0, 0).keys
    near = [
        abs(len(a) - len(b)) <= 1 and len(set(a.lower()) ^ set(b.lower())) <= 4
        for a, b in zip(keys[::2], keys[1::2], strict=True)
    ]
    assert 20 <= sum(near) <= 50
    random = noise.generator(0, "test")
    for _ in range(300):
        changed = glyph.changed("wagen", random)
        assert changed.lower() != "" and abs(len(changed) - 5) <= 1


def test_a_word_that_comes_twice_counts_once():
    stage = glyph.make(context(batch=64, captions=['"KAFFEE"']))
    batch = stage.draw(0, 0)
    ours = np.array([key == "KAFFEE" for key in batch.keys])
    assert ours.sum() > 3
    assert batch.arrays[9][ours].sum() == 1
    assert batch.arrays[9][~ours].sum() == len(set(batch.keys)) - 1


@pytest.mark.parametrize("texts", [["é1"], ["é1", "abc"]], ids=["odd", "even"])
def test_words_are_spelled_as_in_a_prompt(texts):
    config = presets.get("nano").glyph
    ids, mask, buckets, waves = glyph.spelled(texts, config, has_front_pad=False)
    word = [byte + GLYPH_BYTE_OFFSET for byte in "é1".encode()] + [GLYPH_EOS_ID]
    assert ids[0].tolist()[:4] == word
    assert mask[0].sum() == 4
    assert buckets.shape == (ids.shape[1], ids.shape[1])
    # two bytes of one letter stand in one place, the end in none; the first wave is a mean
    assert waves[0, 0].tolist()[:4] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert waves[0, 1].tolist()[:4] == pytest.approx(
        [np.cos(np.pi / 4) / 3] * 2 + [np.cos(3 * np.pi / 4) / 3, 0], abs=1e-6
    )
    padded = glyph.spelled(texts, config, has_front_pad=True)
    assert padded[0][0].tolist()[:5] == [GLYPH_PAD_ID, *word]
    assert padded[1][0].sum() == 5
    assert padded[3][0, 0, 0] == 0


@pytest.mark.parametrize("text", ["i", "Ágil", "GESCHLOSSEN", "WWWWWWWWWWWWWWWW"])
def test_a_rendered_word_lies_in_the_columns_that_are_read(text):
    for number in range(12):
        pixels, (left, right) = glyph.rendered(text, noise.generator(0, "test", number), TRAIN_FONTS)
        assert pixels.shape == (glyph.HEIGHT_PX, glyph.WIDTH_PX)
        columns = np.nonzero((pixels > pixels.min() + 0.1).any(0))[0]
        assert glyph.COLUMN_PX <= left <= columns.min()
        assert columns.max() < right <= glyph.WIDTH_PX - glyph.COLUMN_PX
        waves = glyph.column_waves([(left, right)])
        assert waves.shape == (1, glyph.NUM_WAVES, glyph.WIDTH_PX // glyph.COLUMN_PX - 2)
        assert waves[0, 0].sum() == pytest.approx(1)


@pytest.mark.parametrize("padded", [False, True])
def test_a_byte_tells_where_it_stands_and_which_letter_it_is(padded):
    config = presets.get("nano").glyph
    told, share = glyph.told(["aé1", "x"], config, padded)
    ids, *_ = glyph.spelled(["aé1", "x"], config, padded)
    assert told.shape == (*ids.shape, glyph.NUM_TOLD) and share.shape == ids.shape
    assert share.sum() == pytest.approx(1) and (share > 0).sum(1).tolist() == [4, 1]
    inside = told[0, int(padded) : padded + 4]
    assert inside[:, 7].tolist() == [0, 0.25, 0.25, 0.5]  # letters before it, in fours; é is two bytes of one letter
    assert inside[:, 8].tolist() == [0.5, 0.25, 0.25, 0]
    assert inside[:, 9].tolist() == [-0.5, 0, 0, 0.5]
    # three letters stand in the cells 2, 3 and 4 of eight
    assert inside[:, 0] == pytest.approx(np.cos(np.pi * np.array([2.5, 3.5, 3.5, 4.5]) / 8), abs=1e-6)
    assert [np.flatnonzero(row).tolist() for row in inside[:, 10:]] == [[0], [4, 37], [4, 37], [27]]  # a, é, é, 1
    assert glyph.told(["É"], config, padded)[0][0, int(padded), 10 + 36] == 1  # a capital


def test_heads_begin_by_looking_to_one_side():
    name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    bias = initial_weights({name: (32, 4)}, 0)[name]
    assert (bias[0] == 0).all()
    assert (bias[1:16, 1::2] > bias[17:, 1::2]).all() and (bias[17:, ::2] > bias[1:16, ::2]).all()
    assert (np.diff(bias[1:16, 1]) <= 0).all() and bias[15, 3] < bias[15, 1]


def test_the_exported_part_is_the_byte_encoder_alone():
    stage = glyph.make(context())
    part = [name for name, _ in stage.module.named_parameters() if name.startswith(stage.prefix)]
    names = {name.removeprefix("part.") for name in part}
    assert "shared.weight" in names
    assert "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight" in names
    assert all(name.startswith(("shared.", "encoder.")) for name in names)


def test_a_few_steps_find_more_words_than_chance():
    stage = glyph.make(context(batch=32))
    updater = ready(stage)
    assert glyph.evaluate(stage.module, "cpu", num_words=32)["retrieval@1"] < 0.25
    losses = []
    for step in range(40):
        batch = stage.draw(step, 0)
        losses.append(updater.step(stage.loss, [tuple(dev.array(a, "cpu") for a in batch.arrays)], 2e-3).loss)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    found = glyph.evaluate(stage.module, "cpu", num_words=32)
    assert set(found) == {"retrieval@1", "retrieval@1_unseen_font"}
    assert found["retrieval@1"] > 2 / 32


def test_measured_words_are_unseen_and_those_of_the_captions_are_left_out():
    found = glyph.measured_words(200)
    assert len(found) == 200 == len({text.casefold() for text in found})
    assert all(is_test_word(text) for text in found)
    assert not set(map(str.casefold, glyph.measured_words(200, avoid=found[:20]))) & set(map(str.casefold, found[:20]))
    assert not set(TRAIN_FONTS) & set(HELD_OUT_FONTS)
