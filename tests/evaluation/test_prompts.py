import hashlib

import pytest

from evaluation import prompts
from evaluation.prompts import PromptSet, prompt_set_id, prompts_of_protocol
from rsvl_data.errors import OptionError

EUROSAT = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake".split()


def test_georsclip(golden):
    published = golden("prompts")[0]["georsclip"]
    assert prompts.GEORSCLIP.prompts(published["filled_with"]) == published["prompts"]
    rule = published["class_name_rule"]
    assert [prompts.georsclip_class_name(raw) for raw in rule["raw"]] == rule["normalised"]


def test_skyscript(golden):
    published = golden("prompts")[0]["skyscript_and_farslip"]
    assert prompts.SKYSCRIPT.prompts(published["filled_with"]) == published["scene"]
    assert published["retrieval_prefix"] == prompts.SKYSCRIPT_CAPTION_PREFIX


def test_clip_benchmark(golden):
    published = golden("prompts")[0]["clip_benchmark"]
    for ours, theirs in ((prompts.CLIP_BENCHMARK_EUROSAT, "eurosat"), (prompts.CLIP_BENCHMARK_RESISC45, "resisc45")):
        assert [template.replace("{}", "{c}") for template in ours.templates] == published[f"{theirs}_templates"]
    assert [prompts.eurosat_class_name(label) for label in sorted(EUROSAT)] == published["eurosat_classnames"]


def test_openai(golden):
    published = golden("prompts")[0]
    assert list(prompts.RESISC45_CLASS_NAMES) == published["openai_clip"]["resisc45_classes"]
    assert list(prompts.OPENAI_RESISC45.templates) == published["openai_clip"]["resisc45_templates"]
    imagenet = published["ovss"]["text_templates"]
    filled = "\n".join(prompts.CLIP_BENCHMARK_DEFAULT.prompts(imagenet["sha256_of_newline_joined_prompts_for"]))
    assert hashlib.sha256(filled.encode()).hexdigest() == imagenet["sha256"]


def test_what_a_protocol_prescribes():
    resisc45 = [name.replace(" ", "_") for name in prompts.RESISC45_CLASS_NAMES]
    assert prompts_of_protocol("clip_benchmark", EUROSAT) is prompts.CLIP_BENCHMARK_EUROSAT
    assert prompts_of_protocol("clip_benchmark", resisc45) is prompts.CLIP_BENCHMARK_RESISC45
    assert prompts_of_protocol("clip_benchmark", EUROSAT[:3]) is prompts.CLIP_BENCHMARK_DEFAULT
    for protocol, name in (("rsvl",) * 2, ("skyscript",) * 2, ("georsclip",) * 2, ("farslip", "skyscript")):
        assert prompts_of_protocol(protocol, EUROSAT).name == name
    with pytest.raises(OptionError, match="'clip'; allowed: rsvl, skyscript, farslip, georsclip, clip_benchmark"):
        prompts_of_protocol("clip", EUROSAT)


def test_labels_become_words():
    assert prompts.SKYSCRIPT.prompts("GolfCourse")[0] == "a satellite photo of golf course."
    assert len(set(prompts.RSVL.prompts("river"))) == 5


def test_the_id_changes_with_what_is_said():
    one = PromptSet("mine", ("a {}", "the {}"))
    assert prompt_set_id(one) == prompt_set_id(PromptSet("mine", ("a {}", "the {}")))
    others = [PromptSet("mine", ("the {}", "a {}")), PromptSet("mine", one.templates, "average_then_normalize")]
    assert len({prompt_set_id(one), *map(prompt_set_id, others)}) == 3
    assert prompt_set_id(one).startswith("mine-") and len(prompt_set_id(one)) == len("mine-") + 8


@pytest.mark.parametrize("templates", [(), ("no slot",), ("{} and {}",), ("fine {}", "{c}")])
def test_templates_without_their_slot(templates):
    with pytest.raises(OptionError, match="each template needs one {} for the class name"):
        PromptSet("mine", templates)
