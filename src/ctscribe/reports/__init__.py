"""The text side: findings, labels, sizes, sections, and all prompt wording."""
