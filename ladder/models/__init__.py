"""Safe loading and saving of Hugging Face folders, content digests, adapters and the output head.

A name is imported from its file when it is asked for first: who verifies a digest waits for no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ladder.models.adapters import (
        STUDENT,
        AdapterCost,
        add_adapter,
        load_quantized,
        merged,
        plain,
        rank_used,
        rehearse,
        tuner_of,
    )
    from ladder.models.chat import (
        NEWLINE,
        Conversation,
        Ending,
        Taught,
        answer_ids,
        answers_users,
        asked_ids,
        drops_systems,
        ending,
        ends_itself,
        opens_otherwise,
    )
    from ladder.models.digest import (
        folder_digest,
        template_digest,
        tensor_files,
        tensors_digest,
        tensors_file_digest,
        tokenizer_digest,
    )
    from ladder.models.ensemble import Ensemble, EnsembleSpec, Pooling, shares, vocabulary
    from ladder.models.generation import continue_rows, decoding_batches, end_ids, generation_settings, pad_id
    from ladder.models.head import Head, Proof, deduplicated, hidden_states, load_head, prove
    from ladder.models.intake import (
        Say,
        check_readable,
        copy_model,
        holds,
        load_gguf_tokenizer,
        quiet,
        renew_folder,
        save_model,
        take_in,
    )
    from ladder.models.load import check_same_tokenizer, config_of, load_encoder, load_model, load_tokenizer
    from ladder.models.preflight import (
        adapter_text,
        check_config,
        hard_positions,
        main_dtype,
        named_positions,
        stored_bytes,
        stored_shapes,
    )
    from ladder.models.rounding import Rounding, as_stored, check_survives
    from ladder.models.scratch import architecture_config, fresh_model, train_tokenizer
    from ladder.models.shared_base import SharedBase, Stack, TeacherModel, WholeModel, can_share, is_sum
    from ladder.models.source import is_adapter
    from ladder.models.template import (
        ASKED,
        answering,
        control_names,
        controls_of,
        dated,
        day_of,
        holding,
        plain_ids,
        read_template,
    )
    from ladder.models.tokenizer import CORPUS, added_ids, apart, check_same_ids, write_tokenizer

__all__ = [
    "ASKED",
    "CORPUS",
    "NEWLINE",
    "STUDENT",
    "AdapterCost",
    "Conversation",
    "Ending",
    "Ensemble",
    "EnsembleSpec",
    "Head",
    "Pooling",
    "Proof",
    "Rounding",
    "Say",
    "SharedBase",
    "Stack",
    "Taught",
    "TeacherModel",
    "WholeModel",
    "adapter_text",
    "add_adapter",
    "added_ids",
    "answer_ids",
    "answering",
    "answers_users",
    "apart",
    "architecture_config",
    "as_stored",
    "asked_ids",
    "can_share",
    "check_config",
    "check_readable",
    "check_same_ids",
    "check_same_tokenizer",
    "check_survives",
    "config_of",
    "continue_rows",
    "control_names",
    "controls_of",
    "copy_model",
    "dated",
    "day_of",
    "decoding_batches",
    "deduplicated",
    "drops_systems",
    "end_ids",
    "ending",
    "ends_itself",
    "folder_digest",
    "fresh_model",
    "generation_settings",
    "hard_positions",
    "hidden_states",
    "holding",
    "holds",
    "is_adapter",
    "is_sum",
    "load_encoder",
    "load_gguf_tokenizer",
    "load_head",
    "load_model",
    "load_quantized",
    "load_tokenizer",
    "main_dtype",
    "merged",
    "named_positions",
    "opens_otherwise",
    "pad_id",
    "plain",
    "plain_ids",
    "prove",
    "quiet",
    "rank_used",
    "read_template",
    "rehearse",
    "renew_folder",
    "save_model",
    "shares",
    "stored_bytes",
    "stored_shapes",
    "take_in",
    "template_digest",
    "tensor_files",
    "tensors_digest",
    "tensors_file_digest",
    "tokenizer_digest",
    "train_tokenizer",
    "tuner_of",
    "vocabulary",
    "write_tokenizer",
]

_FILES = {
    "adapters": "AdapterCost STUDENT add_adapter load_quantized merged plain rank_used rehearse tuner_of",
    "chat": "Conversation Ending NEWLINE Taught answer_ids answers_users asked_ids drops_systems ending ends_itself "
    "opens_otherwise",
    "digest": "folder_digest template_digest tensor_files tensors_digest tensors_file_digest tokenizer_digest",
    "ensemble": "Ensemble EnsembleSpec Pooling shares vocabulary",
    "generation": "continue_rows decoding_batches end_ids generation_settings pad_id",
    "head": "Head Proof deduplicated hidden_states load_head prove",
    "intake": "Say check_readable copy_model holds load_gguf_tokenizer quiet renew_folder save_model take_in",
    "load": "check_same_tokenizer config_of load_encoder load_model load_tokenizer",
    "preflight": "adapter_text check_config hard_positions main_dtype named_positions stored_bytes stored_shapes",
    "rounding": "Rounding as_stored check_survives",
    "scratch": "architecture_config fresh_model train_tokenizer",
    "shared_base": "SharedBase Stack TeacherModel WholeModel can_share is_sum",
    "source": "is_adapter",
    "template": "ASKED answering control_names controls_of dated day_of holding plain_ids read_template",
    "tokenizer": "CORPUS added_ids apart check_same_ids write_tokenizer",
}
"""The names of each file; a test holds them to those above."""
_FILE_OF = {name: file for file, names in _FILES.items() for name in names.split()}


# Before transformers is imported by whoever is first.
for _name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TQDM_DISABLE"):
    os.environ.setdefault(_name, "1")


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _FILE_OF[name] != "digest":
        import_module(f"{__name__}.load")  # Where transformers is told to be quiet.
    found = getattr(import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    globals()[name] = found
    return found
