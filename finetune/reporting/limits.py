"""What a report leaves out, so that a large run costs little more than its evaluation. The page says so."""

# A run with more images in all has its doubtful labels and nearest images searched among a sample, and the
# doctor compares its files by the digests that the run recorded.
MOST_IMAGES = 3_000
SAMPLE_OF_TRAIN = 400
# Of every other split.
SAMPLE = 100

# Cards of the worst mistakes and of the least certain predictions, at most.
MISTAKES = 24
UNCERTAIN = 12
NEAREST = 3
# The probable classes that a card names.
CLASSES_OF_CARD = 3
# One card needs its image, its heat-map and its nearest images.
IMAGES_OF_CARD = 2 + NEAREST

# Rows of the list of doubtful labels, at most, and the share of a page's images that they get.
LABELS = 100
SHARE_OF_LABELS = 8

# The whole confusion matrix is shown for at most this many classes; for more, the most confused pairs.
MATRIX_CLASSES = 60
PAIRS = 40
# Images that a cell of the matrix lists: of mistakes, and of right predictions.
IMAGES_OF_CELL = 60
IMAGES_OF_DIAGONAL = 24

# Cards of images on which runs disagree, and rows of the list of the others, at most.
DISPUTES = 60
DISPUTES_LISTED = 300
# Curves of more runs than this fit no chart.
CURVES = 7
# Cards of the images that all seeds take for another class, and of those that some do, at most.
HARD = 24
UNSTEADY = 24

# Findings of the doctor and files of a finding that are listed.
FINDINGS = 40
FILES = 5
# Classes that a sentence names.
CLASSES = 3
