"""The names of the scores, as they stand in every table and file."""

ROUGE_SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BERT_SCORES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
SCORES = ROUGE_SCORES + BERT_SCORES
