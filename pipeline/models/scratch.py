"""Build small models from scratch, with random weights and a tokenizer that learns from the training split.

Configuration and tokenizer are of the family's own classes. The tokenizer's class brings the pre-tokenizer and the
post-processor; this module trains the vocabulary. The same texts always give the same vocabulary. For this reason
SentencePiece trains the unigram vocabularies: the trainer in `tokenizers` gives a different one each time.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer
from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer
from transformers import (
    BartConfig,
    BartTokenizerFast,
    BertConfig,
    BertTokenizerFast,
    BlenderbotSmallConfig,
    BlenderbotSmallTokenizer,
    EncoderDecoderConfig,
    LEDConfig,
    LEDTokenizerFast,
    LlamaConfig,
    MBartConfig,
    MBartTokenizerFast,
    MT5Config,
    PegasusConfig,
    PegasusTokenizerFast,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProphetNetConfig,
    ProphetNetTokenizer,
    T5Config,
    T5TokenizerFast,
)

from pipeline.errors import Rejected
from pipeline.settings import Settings

MAX_POSITIONS = 1024
_LONGEST_TEXT_BYTES = 1 << 24
_LED_WINDOW = 64
PROPHETNET_POSITIONS = 512  # each step fills tables of positions × positions, even for short titles


class ScratchSize(Settings):
    """Size of a model from scratch."""

    width: int = Field(ge=8)  # size of hidden states; feed-forward layers are four times as wide
    layers: int = Field(ge=1)  # number of layers in the encoder, and again in the decoder
    heads: int = Field(ge=1)  # attention heads
    vocabulary: int = Field(ge=300)  # most tokens that the tokenizer learns

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> ScratchSize:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


def _unigram(texts: list[str], size: int, specials: list[str]) -> list[tuple[str, float]]:
    """Learn a unigram vocabulary with SentencePiece: pieces with their log-probabilities, `specials` first.

    Raises:
        Rejected: The vocabulary is too small for the characters of the texts, or the texts are too few for it.
    """
    import sentencepiece  # only these families need it

    learnt = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=learnt,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            max_sentence_length=_LONGEST_TEXT_BYTES,
            num_threads=1,  # several threads add numbers in varying order, which changes the vocabulary
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise Rejected(
            f"A tokenizer of {size} tokens cannot be trained on these examples: {error}. Change the model's "
            "scratch.vocabulary in params.yaml."
        ) from None
    model = sentencepiece.SentencePieceProcessor(model_proto=learnt.getvalue())
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(1, len(model))]
    return [(special, 0.0) for special in specials] + [piece for piece in pieces if piece[0] not in specials]


def _byte_pairs(texts: Iterable[str], size: int, specials: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn a byte-level BPE: the vocabulary, `specials` first, and the merges."""
    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(iter(texts), vocab_size=size, special_tokens=[*specials], show_progress=False)
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _word_pieces(texts: list[str], size: int, specials: list[str]) -> dict[str, int]:
    """Learn a lower-case WordPiece vocabulary in the order of its ids, `specials` first."""
    learner = BertWordPieceTokenizer()
    first: list[str | AddedToken] = [
        *specials,
        *(f"##{character}" for character in _characters(texts, learner.normalizer)),
    ]
    learner.train_from_iterator(iter(texts), vocab_size=size, special_tokens=first, show_progress=False)
    return dict(sorted(learner.get_vocab().items(), key=lambda item: item[1]))


def _characters(texts: list[str], normaliser: normalizers.Normalizer) -> list[str]:
    """Return the sorted characters of the normalised texts.

    Trainers number marked characters (`##a`, `a</w>`) in an order that varies between processes, and break ties by
    these numbers. Passing the characters to the trainer fixes their order.
    """
    return sorted({character for text in texts for character in normaliser.normalize_str(text) if character.strip()})


def t5_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small T5 tokenizer on texts."""
    return T5TokenizerFast(vocab=_unigram(texts, size, ["<pad>", "</s>", "<unk>"]), extra_ids=0)


def pegasus_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small Pegasus tokenizer on texts."""
    specials = ["<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk>"]
    return PegasusTokenizerFast(vocab=_unigram(texts, size, specials), offset=2)


def mbart_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small mBART tokenizer on texts."""
    vocabulary = _unigram(texts, size, ["<s>", "<pad>", "</s>", "<unk>"])
    return MBartTokenizerFast(vocab=[*vocabulary, ("en_XX", 0.0), ("<mask>", 0.0)], src_lang="en_XX", tgt_lang="en_XX")


def bart_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small BART tokenizer on texts."""
    vocabulary, merges = _byte_pairs(texts, size, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return BartTokenizerFast(vocab=vocabulary, merges=merges)


def led_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small LED tokenizer on texts."""
    vocabulary, merges = _byte_pairs(texts, size, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return LEDTokenizerFast(vocab=vocabulary, merges=merges)


def blenderbot_small_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small Blenderbot Small tokenizer on texts."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex("[.,!?()]"), "merged_with_next"),
            pre_tokenizers.Split("'", "isolated"),
        ]
    )
    specials = ["__null__", "__start__", "__end__", "__unk__", "__newln__"]
    first = [*specials, *(f"{character}</w>" for character in _characters(texts, learner.normalizer))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=first, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    # The trainer marks pieces that end a word. This tokenizer marks all other pieces.
    vocabulary = {
        piece if piece in specials or piece.endswith("</w>") else f"{piece}@@": number
        for piece, number in model["vocab"].items()
    }
    vocabulary = {piece.removesuffix("</w>"): number for piece, number in vocabulary.items()}
    with tempfile.TemporaryDirectory() as folder:
        pieces, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        pieces.write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
        merges.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return BlenderbotSmallTokenizer(pieces, merges)


def prophetnet_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small ProphetNet tokenizer on texts."""
    vocabulary = _word_pieces(texts, size, ["[PAD]", "[UNK]", "[SEP]", "[X_SEP]", "[MASK]"])
    with tempfile.TemporaryDirectory() as folder:
        pieces = Path(folder) / "prophetnet.tokenizer"
        pieces.write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
        return ProphetNetTokenizer(pieces)


def bert_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small BERT tokenizer on texts."""
    return BertTokenizerFast(vocab=_word_pieces(texts, size, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))


def causal_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerBase:
    """Train a small Llama tokenizer on texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    specials = ["<pad>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")
    wrapped.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return wrapped


def _t5_like(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the settings that T5 and mT5 share."""
    return {
        "vocab_size": len(tokenizer),
        "d_model": size.width,
        "d_kv": size.width // size.heads,
        "d_ff": 4 * size.width,
        "num_layers": size.layers,
        "num_heads": size.heads,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }


def t5_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small T5 model."""
    return T5Config(**_t5_like(size, tokenizer))


def mt5_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small mT5 model."""
    return MT5Config(**_t5_like(size, tokenizer))


def _bart_like(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the settings that have the same names in BART and its descendants."""
    return {
        "vocab_size": len(tokenizer),
        "d_model": size.width,
        "encoder_layers": size.layers,
        "decoder_layers": size.layers,
        "encoder_attention_heads": size.heads,
        "decoder_attention_heads": size.heads,
        "encoder_ffn_dim": 4 * size.width,
        "decoder_ffn_dim": 4 * size.width,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def bart_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small BART model."""
    return BartConfig(
        **_bart_like(size, tokenizer),
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )


def pegasus_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small Pegasus model."""
    return PegasusConfig(
        **_bart_like(size, tokenizer),
        max_position_embeddings=MAX_POSITIONS,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )


def led_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small LED model."""
    return LEDConfig(
        **_bart_like(size, tokenizer),
        max_encoder_position_embeddings=MAX_POSITIONS,
        max_decoder_position_embeddings=MAX_POSITIONS,
        attention_window=_LED_WINDOW,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )


def mbart_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small mBART model."""
    return MBartConfig(
        **_bart_like(size, tokenizer),
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
    )


def blenderbot_small_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small Blenderbot Small model."""
    return BlenderbotSmallConfig(
        **_bart_like(size, tokenizer),
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
    )


def prophetnet_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small ProphetNet model."""
    return ProphetNetConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        num_encoder_layers=size.layers,
        num_decoder_layers=size.layers,
        num_encoder_attention_heads=size.heads,
        num_decoder_attention_heads=size.heads,
        encoder_ffn_dim=4 * size.width,
        decoder_ffn_dim=4 * size.width,
        max_position_embeddings=PROPHETNET_POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.sep_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.sep_token_id,
    )


def encoder_decoder_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small encoder-decoder model."""
    side = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**side), BertConfig(**side), **encoder_decoder_ids(tokenizer)
    )


def encoder_decoder_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the ids of the tokens that start, end and pad a title, which an encoder's configuration lacks."""
    return {
        "decoder_start_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def causal_config(size: ScratchSize, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Configure a small Llama model."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
