"""Verbs that AMCT has in two editions, whose arguments differ in number and order: one function that takes both."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from amct_lite.errors import ParameterError

__all__ = ["TwoForms", "with_onnx_form"]

Caffe = ParamSpec("Caffe")
Onnx = ParamSpec("Onnx")
Result = TypeVar("Result", covariant=True)


class TwoForms(Protocol, Generic[Caffe, Onnx, Result]):
    """A function that is called in the form of amct_caffe, or in that of amct_onnx."""

    @overload
    def __call__(self, *args: Caffe.args, **kwargs: Caffe.kwargs) -> Result: ...
    @overload
    def __call__(self, *args: Onnx.args, **kwargs: Onnx.kwargs) -> Result: ...


def with_onnx_form(
    onnx_form: Callable[Onnx, Result], is_onnx_call: Callable[[dict[str, Any], dict[str, Any]], bool]
) -> Callable[[Callable[Caffe, Result]], TwoForms[Caffe, Onnx, Result]]:
    """Let a verb be called in amct_onnx's form too.

    Args:
        onnx_form: The same verb with amct_onnx's parameters.
        is_onnx_call: Of a call that fits both forms, as their arguments by name: whether amct_onnx's is meant.

    Returns:
        A decorator. The verb it makes raises ParameterError, naming both forms, for a call that fits neither.
    """

    def decorate(caffe_form: Callable[Caffe, Result]) -> TwoForms[Caffe, Onnx, Result]:
        signatures = inspect.signature(caffe_form), inspect.signature(onnx_form)

        @functools.wraps(caffe_form)
        def verb(*arguments: Any, **keywords: Any) -> Result:
            caffe, onnx = (_bound(signature, arguments, keywords) for signature in signatures)
            if caffe is None and onnx is None:
                raise _fits_neither(caffe_form.__name__, signatures, arguments, keywords)
            if caffe is None or (onnx is not None and is_onnx_call(caffe.arguments, onnx.arguments)):
                return onnx_form(*arguments, **keywords)
            return caffe_form(*arguments, **keywords)

        return verb

    return decorate


def _bound(
    signature: inspect.Signature, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> inspect.BoundArguments | None:
    try:
        return signature.bind(*arguments, **keywords)
    except TypeError:
        return None


def _fits_neither(
    name: str, signatures: tuple[inspect.Signature, ...], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> ParameterError:
    mistakes = []
    for signature in signatures:
        try:
            signature.bind(*arguments, **keywords)
        except TypeError as error:
            mistakes.append(str(error))
    caffe, onnx = (", ".join(_positional(signature)) for signature in signatures)
    return ParameterError(
        f"{name}: {' / '.join(dict.fromkeys(mistakes))}.",
        remedy=f"Call it as amct_caffe does, {name}({caffe}), or as amct_onnx does, {name}({onnx}).",
    )


def _positional(signature: inspect.Signature) -> list[str]:
    return [name for name, value in signature.parameters.items() if value.kind is not value.KEYWORD_ONLY]
