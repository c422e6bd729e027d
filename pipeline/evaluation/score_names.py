"""Names of the scores in all tables and files."""

from typing import Literal, get_args

RougeScore = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
BertScore = Literal["bertscore_precision", "bertscore_recall", "bertscore_f1"]
Score = Literal[RougeScore, BertScore]

ROUGE_SCORES = get_args(RougeScore)
BERT_SCORES = get_args(BertScore)
SCORES = get_args(Score)
