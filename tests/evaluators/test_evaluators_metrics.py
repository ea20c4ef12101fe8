import pickle  # noqa: TID251 - evaluators must survive the trip to another process
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import EvaluatorError, ParameterError
from amct_lite.evaluators import AgreementEvaluator, ArrayData, ClassificationEvaluator, DivergenceEvaluator
from amct_lite.evaluators.classification import count_right
from amct_lite.evaluators.divergence import divergence

SCORES = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
LABELS = SCORES.argmax(axis=1)


def evaluate(evaluator, model_file, batch_num=None):
    return evaluator.eval_model(model_file, None, batch_num or evaluator.evaluate_batch_num)


def all_evaluators(model_file, **options):
    return [
        ClassificationEvaluator(ArrayData(SCORES, LABELS), max_drop=0.01, **options),
        AgreementEvaluator(SCORES, float_model_file=model_file, min_agreement=0.99, **options),
        DivergenceEvaluator(SCORES, float_model_file=model_file, max_divergence=0.01, **options),
    ]


def test_every_evaluator_is_satisfied_with_the_float_network_itself(identity_model):
    for evaluator in all_evaluators(identity_model, batch_size=3):
        assert isinstance(evaluator, AutoNuqEvaluatorBase)
        metric = evaluate(evaluator, identity_model)
        assert evaluator.is_satisfied(metric, metric)


def test_no_evaluator_is_satisfied_with_another_network(identity_model, reversed_model):
    for evaluator in all_evaluators(identity_model):
        original, new = evaluate(evaluator, identity_model), evaluate(evaluator, reversed_model)
        assert not evaluator.is_satisfied(original, new)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_metric_does_not_depend_on_batch_size_order_of_calls_or_fixed_batch(
    identity_model, doubled_model, fixed_batch_model, batch_size
):
    expected = [evaluate(evaluator, doubled_model) for evaluator in all_evaluators(identity_model)]
    evaluators = all_evaluators(fixed_batch_model, batch_size=batch_size)
    for evaluator in evaluators:
        evaluate(evaluator, doubled_model, batch_num=1)
    assert [evaluate(evaluator, doubled_model) for evaluator in evaluators] == pytest.approx(expected, abs=1e-12)


def test_evaluators_travel_to_other_processes(identity_model, doubled_model):
    for evaluator in all_evaluators(identity_model):
        metric = evaluate(evaluator, doubled_model)
        assert evaluate(pickle.loads(pickle.dumps(evaluator)), doubled_model) == metric


def test_number_of_batches_counts_from_the_start(identity_model):
    labels = np.where(np.arange(10) < 4, LABELS, (LABELS + 1) % 3)
    evaluator = ClassificationEvaluator(ArrayData(SCORES, labels), max_drop=0, batch_size=4, evaluate_batch_num=2)
    assert evaluator.evaluate_batch_num == 2
    assert evaluate(evaluator, identity_model, batch_num=1) == 1.0
    assert evaluate(evaluator, identity_model) == 0.5
    assert evaluate(evaluator, identity_model, batch_num=3) == 0.4


def test_all_data_is_evaluated_by_default_even_at_a_fixed_batch(identity_model, fixed_batch_model):
    labels = LABELS.copy()
    labels[-1] = (labels[-1] + 1) % 3
    evaluator = ClassificationEvaluator(ArrayData(SCORES, labels), max_drop=0, batch_size=32)
    assert evaluate(evaluator, identity_model) == evaluate(evaluator, fixed_batch_model) == 0.9


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_top_k_counts_like_a_loop(seed, top_k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (6, 5)).astype(np.float32)  # many ties
    accepted = rng.integers(-1, 5, (6, 2))
    expected = 0
    for row, classes in zip(scores, accepted, strict=True):
        ranked = sorted(range(5), key=lambda index: (-row[index], index))
        expected += bool(set(ranked[:top_k]) & set(classes.tolist()))
    assert count_right(scores, accepted, top_k) == expected


def test_drop_of_exactly_the_limit_passes():
    evaluator = ClassificationEvaluator(ArrayData(SCORES, LABELS), max_drop=0.01)
    assert evaluator.is_satisfied(0.9, 0.89)
    assert evaluator.is_satisfied(0.9, 0.95)
    assert not evaluator.is_satisfied(0.9, 0.8899)
    assert not evaluator.is_satisfied(0.9, float("nan"))


def test_label_without_a_class_is_an_error_with_sample_and_classes(identity_model):
    labels = LABELS.copy()
    labels[7] = 3
    evaluator = ClassificationEvaluator(ArrayData(SCORES, labels), max_drop=0, batch_size=4)
    with pytest.raises(EvaluatorError, match=r"Sample 7 has the label 3.* 3 classes, 0 to 2"):
        evaluate(evaluator, identity_model)


def test_k_that_no_sample_could_fail_is_an_error(identity_model):
    evaluator = ClassificationEvaluator(ArrayData(SCORES, LABELS), max_drop=0, top_k=3)
    with pytest.raises(EvaluatorError, match=r"Top-3.* 3 classes"):
        evaluate(evaluator, identity_model)


def test_data_without_labels_is_refused_with_the_way_out():
    with pytest.raises(ParameterError, match="AgreementEvaluator"):
        ClassificationEvaluator(SCORES, max_drop=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"max_drop": -0.1},
        {"max_drop": 5},
        {"max_drop": "1"},
        {"top_k": 0},
        {"batch_size": 2.0},
        {"evaluate_batch_num": 0},
    ],
)
def test_parameter_out_of_range_is_an_error_with_its_name(options):
    with pytest.raises(ParameterError, match=next(iter(options))):
        ClassificationEvaluator(ArrayData(SCORES, LABELS), **({"max_drop": 0.01} | options))


def test_agreement_is_the_share_of_equal_classes(identity_model, doubled_model, reversed_model):
    evaluator = AgreementEvaluator(SCORES, float_model_file=identity_model, min_agreement=0.5)
    assert evaluate(evaluator, doubled_model) == 1.0
    assert evaluate(evaluator, reversed_model) == 0.0
    assert evaluator.is_satisfied(1.0, 0.5)
    assert not evaluator.is_satisfied(1.0, 0.49)


def test_models_with_other_classes_are_told_apart(identity_model, write_model):
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    wide (float[N, 3] scores) => (float[N, 6] logits)
    {
      logits = Concat <axis: int = 1> (scores, scores)
    }
    """
    evaluator = AgreementEvaluator(SCORES, float_model_file=identity_model, min_agreement=1)
    with pytest.raises(EvaluatorError, match=r"6 classes.* 3"):
        evaluate(evaluator, write_model(text, "wide"))


def test_float_model_that_is_missing_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"float_model_file.*missing\.onnx"):
        AgreementEvaluator(SCORES, float_model_file=tmp_path / "missing.onnx", min_agreement=1)


def test_divergence_is_the_textbook_sum_from_logits_and_from_probabilities(identity_model, doubled_model):
    def softmax(x):
        return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)

    p, q = softmax(SCORES.astype(np.float64)), softmax(2 * SCORES.astype(np.float64))
    expected = (p * np.log(p / q)).sum(axis=1).mean()
    for output, logits in [
        ("logits", None),
        ("logits", True),
        ("probabilities", None),
        ("probabilities", False),
    ]:
        evaluator = DivergenceEvaluator(
            SCORES,
            float_model_file=identity_model,
            max_divergence=0.1,
            output=output,
            logits=logits,
            batch_size=3,
        )
        assert evaluate(evaluator, doubled_model) == pytest.approx(expected, rel=1e-5)
        assert evaluate(evaluator, identity_model) == 0


def test_probabilities_of_zero_give_a_finite_divergence():
    certain, wrong = np.float32([[1, 0]]), np.float32([[0, 1]])
    assert divergence(certain, wrong, logits=False)[0] == pytest.approx(-np.log(1e-12), rel=1e-3)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_divergence_is_never_negative_and_zero_for_the_same(seed, logits):
    scores = np.random.default_rng(seed).uniform(0, 1, (2, 4, 3)).astype(np.float32)
    assert (divergence(scores[0], scores[1], logits=logits) >= 0).all()
    assert (divergence(scores[0], scores[0], logits=logits) == 0).all()


def test_logits_that_were_said_to_be_probabilities_are_an_error(identity_model):
    evaluator = DivergenceEvaluator(SCORES, float_model_file=identity_model, max_divergence=1, logits=False)
    with pytest.raises(EvaluatorError, match="said to be probabilities"):
        evaluate(evaluator, identity_model)


def test_importing_the_evaluators_loads_nothing_heavy():
    heavy = ["PIL", "onnx", "onnx_ir", "onnxruntime", "sklearn"]
    code = f"import sys, amct_lite.evaluators; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
