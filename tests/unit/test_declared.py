from __future__ import annotations

import hashlib
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

from akosha import declared
from akosha.embedding import model as embedding
from akosha.errors import ConfigurationError
from akosha.lake.sql import statement
from akosha.transforms import cleaning, fingerprints, quantization, relevance, sentences, signs, summaries
from akosha.uploads import payload, prepare, reader, sources

CODE_IDS = {
    "codec": quantization.CODEC_ID,
    "fingerprint": fingerprints.FINGERPRINT_ID,
    "summary": summaries.SUMMARY_ID,
    "cleaning": cleaning.CLEANING_ID,
    "signs": signs.SIGNS_ID,
    "embedding": embedding.MODEL_ID,
    "quality-rules": reader.RULES_ID,
    "embedding-lane": embedding.LANE_MODEL_ID,
}

# SHA-256 of each released file's canonical JSON. A failing line means that stored data changes its meaning: declare a
# new id in a new file instead.
RELEASED = {
    "all-minilm-l6-v2-int8-v1": "75718df0656f9319c4a8c8428e5820af1ce2e06efc779dc58854d8f4f18e7827",
    "all-minilm-l6-v2": "89d2cfb0794d08f42d57ec6f8529053b5be334342a72f873bc7ccaed4ee3c6c3",
    "clean-v1": "e8fa9a0c323a2984f0f39b2393a35fa6b1cf6d3c566efb2113eac023fd9db54a",
    "ingest-figures-v1": "786ff3f1a1723e32c3b2653230e4086be714a32200ddda323268d138f2e83150",
    "ingest-figures-v2": "8178ea80c1256190366715cd48f2c35708a5081f9e9c5a05803efe7b87dbbb3a",
    "int8-symmetric-v1": "41a21488895d33bcbdab3beacf2c0e9af361cb6d93845476648f93947ed684f5",
    "minhash-affine32-byte8-v1": "52eb939779a6c6831de4def51a19ff58bc7033bbc34d4b94c11a77b0da5a07ad",
    "policy-default-v1": "97eec5789453404a09ac3675bb64ee88765fd27988f5f3e5bd9a3c7bc54463a2",
    "policy-default-v2": "0e27c9b27b3a5db2dbd60a9318c9d73dd762cc94267a8ca7274771224755685e",
    "quality-rules-v1": "722674a7abf73cbd3c6b98af9032db6add869e1315f606c32418167d31114191",
    "rates-v1": "e60ee09578a3747a0c8d257e831936da6b5cf9c321359a6ec9c1212bf8cb6163",
    "sign-centred-v1": "9361ce1bc9aef4a6fe51085aaeeec35aa124feb9ec58c9fba59cc3427e7da014",
    "tf-mmr-3-v1": "0c4fba4b15fe6640ab511bcda44aa3bddc51ceb8743598ab3c961432a4e49114",
}


def canonical_digest(document: dict[str, object]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("kind", sorted(CODE_IDS))
def test_every_id_the_code_writes_is_declared(kind: str) -> None:
    document = declared.model(CODE_IDS[kind])
    assert document["kind"] == kind
    assert document["id"] == CODE_IDS[kind]


@pytest.mark.parametrize("model_id", sorted(RELEASED))
def test_declared_parameters_never_change(model_id: str) -> None:
    assert canonical_digest(declared.model(model_id)) == RELEASED[model_id]


def test_every_declared_id_resolves() -> None:
    assert set(CODE_IDS.values()) <= set(declared.model_ids())
    assert all(declared.model(model_id)["id"] == model_id for model_id in declared.model_ids())


def test_declared_numbers_equal_the_codes_constants() -> None:
    summary = declared.model("tf-mmr-3-v1")
    fingerprint = declared.model("minhash-affine32-byte8-v1")
    codec = declared.model("int8-symmetric-v1")
    encoder = declared.model("all-minilm-l6-v2")
    stop_words = " ".join(sorted(relevance._STOP_WORDS))
    assert summary["sentences"] == relevance.SENTENCES
    assert summary["relevance_weight"] == relevance.RELEVANCE_WEIGHT
    assert summary["full_words"] == relevance.FULL_WORDS
    assert summary["opening_weight"] == relevance.OPENING_WEIGHT
    assert summary["max_characters"] == summaries.MAX_CHARACTERS
    assert summary["max_sentence_characters"] == sentences.MAX_SENTENCE_CHARACTERS
    assert summary["stop_words_sha256"] == hashlib.sha256(stop_words.encode()).hexdigest()
    assert fingerprint["permutations"] == fingerprints.PERMUTATIONS
    assert fingerprint["seed"] == fingerprints.SEED
    assert fingerprint["shingle_bytes"] == fingerprints.SHINGLE_BYTES
    assert fingerprint["empty_value"] == fingerprints.EMPTY_VALUE
    drawn = np.stack(fingerprints.permutations()).astype("<u4").tobytes()
    assert fingerprint["permutations_sha256"] == hashlib.sha256(drawn).hexdigest()
    assert codec["max_code"] == quantization.MAX_CODE
    assert codec["smallest_peak"] == quantization.SMALLEST_PEAK
    assert encoder["dimension"] == embedding.DIMENSION
    assert declared.model("clean-v1")["encoded_prefix"] == cleaning.ENCODED_PREFIX


def rule_codes(action: str) -> set[str]:
    return {rule["code"] for rule in declared.model(reader.RULES_ID)["rules"] if rule["action"] == action}


def test_the_rules_that_are_checked_are_the_rules_that_are_declared() -> None:
    """The other way round as well: no code in the code that is not declared."""
    refusing = set(re.findall(r"THEN '([a-z]+-[a-z]+)'", statement("source_rows")))
    refusing |= set(re.findall(r'"([a-z]+-[a-z]+)"', inspect.getsource(prepare._once)))
    refusing |= set(re.findall(r'"refused": "([a-z-]+)"', inspect.getsource(payload._row)))
    refusing |= set(re.findall(r'return "([a-z-]+)"', inspect.getsource(payload._refusal)))
    refusing |= set(re.findall(r'"([a-z]+-key)"', inspect.getsource(payload._row)))
    dropping = set(re.findall(r'"(vector-[a-z-]+)"', inspect.getsource(sources)))
    assert refusing == rule_codes("refuse-row")
    assert dropping == rule_codes("drop-vector")
    assert rule_codes("distrust-time") == {"time-out-of-range"}
    actions = {rule["action"] for rule in declared.model(reader.RULES_ID)["rules"]}
    assert actions == {"refuse-row", "drop-vector", "distrust-time"}


def test_every_bound_that_is_checked_is_declared() -> None:
    rules = declared.model(reader.RULES_ID)
    asked = set(re.findall(r"\$(\w+)", statement("source_rows")))
    assert asked == set(reader._BOUNDS)
    assert asked | {"unit_tolerance"} == set(rules) - {"id", "kind", "rules", "comment"}


def test_the_declared_mean_fits_its_model() -> None:
    mean = declared.sign_mean()
    assert mean.shape == (384,)
    assert mean.dtype == np.float32
    assert 0 < float(np.linalg.norm(mean)) < 1
    assert declared.model(declared.SIGNS_ID)["embedding_model"] == embedding.MODEL_ID


def test_a_caller_cannot_change_what_is_declared() -> None:
    declared.model("int8-symmetric-v1")["max_code"] = 1
    assert declared.model("int8-symmetric-v1")["max_code"] == 127


@pytest.mark.parametrize("wrong", ["no-such-id-v1", "../settings", "", "UPPER", "a/b"])
def test_an_undeclared_id_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        declared.model(wrong)
    assert wrong in str(caught.value)


def test_a_missing_include_folder_names_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AKOSHA_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="AKOSHA_HOME"):
        declared.include_folder()


def test_akosha_home_chooses_the_include_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "include" / "models").mkdir(parents=True)
    (tmp_path / "include" / "models" / "other-v1.json").write_text('{"id": "other-v1"}')
    (tmp_path / "include" / "models" / "renamed-v1.json").write_text('{"id": "other-v1"}')
    (tmp_path / "include" / "models" / "broken-v1.json").write_text("{")
    monkeypatch.setenv("AKOSHA_HOME", str(tmp_path))
    assert declared.model("other-v1") == {"id": "other-v1"}
    with pytest.raises(ConfigurationError, match="named after"):
        declared.model("renamed-v1")
    with pytest.raises(ConfigurationError, match="not JSON"):
        declared.model("broken-v1")


def test_statements_are_read_by_name_and_a_missing_one_is_named() -> None:
    assert "INSERT" in statement("embedding_cache_insert")
    with pytest.raises(ConfigurationError, match="no_such_statement"):
        statement("no_such_statement")
    with pytest.raises(ConfigurationError, match="plain names"):
        statement("../models/x")
