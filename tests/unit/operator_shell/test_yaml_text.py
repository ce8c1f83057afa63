"""What an apply sends is read as the text that was meant, by a YAML parser too."""

import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from lora_operator.yamltext import yaml_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.recursive(TEXTS | st.integers() | st.booleans() | st.none(), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
), max_leaves=8))  # fmt: skip
def test_yaml_and_json_read_back_what_was_written(document: object) -> None:
    text = yaml_of({"it": document})
    assert json.loads(text) == {"it": document}
    assert yaml.safe_load(text) == {"it": document}
