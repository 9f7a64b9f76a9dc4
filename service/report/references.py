"""The papers behind the methods, and which question each method answers.

A report lists the papers that it cites, no others.
"""

PAPERS: dict[str, str] = {
    "agresti2002": "A. Agresti (2002). Categorical Data Analysis, 2nd edition. Wiley.",
    "athey2016": "S. Athey and G. Imbens (2016). Recursive partitioning for heterogeneous causal "
    "effects. PNAS 113, 7353–7360.",
    "baek2022": "C. Baek, Y. Jiang, A. Raghunathan and J. Z. Kolter (2022). Agreement-on-the-Line: "
    "predicting the performance of neural networks under distribution shift. NeurIPS.",
    "benjamini1995": "Y. Benjamini and Y. Hochberg (1995). Controlling the false discovery rate: a "
    "practical and powerful approach to multiple testing. Journal of the Royal Statistical "
    "Society B 57, 289–300.",
    "beyer2020": "L. Beyer, O. J. Hénaff, A. Kolesnikov, X. Zhai and A. van den Oord (2020). Are "
    "we done with ImageNet? arXiv:2006.07159.",
    "brier1950": "G. W. Brier (1950). Verification of forecasts expressed in terms of probability. "
    "Monthly Weather Review 78, 1–3.",
    "cai2023": "T. T. Cai, H. Namkoong and S. Yadlowsky (2023). Diagnosing model performance under "
    "distribution shift. arXiv:2303.02011.",
    "clopper1934": "C. J. Clopper and E. S. Pearson (1934). The use of confidence or fiducial "
    "limits illustrated in the case of the binomial. Biometrika 26, 404–413.",
    "efron1993": "B. Efron and R. J. Tibshirani (1993). An Introduction to the Bootstrap. Chapman "
    "& Hall.",
    "facco2017": "E. Facco, M. d'Errico, A. Rodriguez and A. Laio (2017). Estimating the intrinsic "
    "dimension of datasets by a minimal neighborhood information. Scientific Reports 7, 12140.",
    "farrington1990": "C. P. Farrington and G. Manning (1990). Test statistics and sample size "
    "formulae for comparative binomial trials with null hypothesis of non-zero risk difference or "
    "non-unity relative risk. Statistics in Medicine 9, 1447–1454.",
    "fisher1935": "R. A. Fisher (1935). The logic of inductive inference. Journal of the Royal "
    "Statistical Society 98, 39–82.",
    "garg2022": "S. Garg, S. Balakrishnan, Z. C. Lipton, B. Neyshabur and H. Sedghi (2022). "
    "Leveraging unlabeled data to predict out-of-distribution performance. ICLR.",
    "guillory2021": "D. Guillory, V. Shankar, S. Ebrahimi, T. Darrell and L. Schmidt (2021). "
    "Predicting with confidence on unseen distributions. ICCV.",
    "guo2017": "C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger (2017). On calibration of modern "
    "neural networks. ICML.",
    "hays1963": "W. L. Hays (1963). Statistics for Psychologists. Holt, Rinehart & Winston.",
    "hedges1985": "L. V. Hedges and I. Olkin (1985). Statistical Methods for Meta-Analysis. "
    "Academic Press.",
    "hinton2002": "G. E. Hinton (2002). Training products of experts by minimizing contrastive "
    "divergence. Neural Computation 14, 1771–1800.",
    "holm1979": "S. Holm (1979). A simple sequentially rejective multiple test procedure. "
    "Scandinavian Journal of Statistics 6, 65–70.",
    "janssen1997": "A. Janssen (1997). Studentized permutation tests for non-i.i.d. hypotheses and "
    "the generalized Behrens-Fisher problem. Statistics & Probability Letters 36, 9–21.",
    "kish1965": "L. Kish (1965). Survey Sampling. Wiley.",
    "kitagawa1955": "E. M. Kitagawa (1955). Components of a difference between two rates. Journal "
    "of the American Statistical Association 50, 1168–1194.",
    "lord1968": "F. M. Lord and M. R. Novick (1968). Statistical Theories of Mental Test Scores. "
    "Addison-Wesley.",
    "mcnemar1947": "Q. McNemar (1947). Note on the sampling error of the difference between "
    "correlated proportions or percentages. Psychometrika 12, 153–157.",
    "miller2021": "J. Miller, R. Taori, A. Raghunathan, S. Sagawa, P. W. Koh, V. Shankar, P. "
    "Liang, Y. Carmon and L. Schmidt (2021). Accuracy on the line: on the strong correlation "
    "between out-of-distribution and in-distribution generalization. ICML.",
    "naeini2015": "M. P. Naeini, G. F. Cooper and M. Hauskrecht (2015). Obtaining well calibrated "
    "probabilities using Bayesian binning. AAAI.",
    "newcombe1998": "R. G. Newcombe (1998). Interval estimation for the difference between "
    "independent proportions: comparison of eleven methods. Statistics in Medicine 17, 873–890.",
    "nie2021": "X. Nie and S. Wager (2021). Quasi-oracle estimation of heterogeneous treatment "
    "effects. Biometrika 108, 299–319.",
    "northcutt2021": "C. G. Northcutt, A. Athalye and J. Mueller (2021). Pervasive label errors in "
    "test sets destabilize machine learning benchmarks. NeurIPS Datasets and Benchmarks.",
    "okada2013": "K. Okada (2013). Is omega squared less biased? A comparison of three major "
    "effect size indices in one-way ANOVA. Behaviormetrika 40, 129–147.",
    "radovanovic2010": "M. Radovanović, A. Nanopoulos and M. Ivanović (2010). Hubs in space: "
    "popular nearest neighbors in high-dimensional data. Journal of Machine Learning Research 11, "
    "2487–2531.",
    "recht2019": "B. Recht, R. Roelofs, L. Schmidt and V. Shankar (2019). Do ImageNet classifiers "
    "generalize to ImageNet? ICML.",
    "roelofs2022": "R. Roelofs, N. Cain, J. Shlens and M. C. Mozer (2022). Mitigating bias in "
    "calibration error estimation. AISTATS.",
    "rubin1981": "D. B. Rubin (1981). The Bayesian bootstrap. The Annals of Statistics 9, 130–134.",
    "schuirmann1987": "D. J. Schuirmann (1987). A comparison of the two one-sided tests procedure "
    "and the power approach for assessing the equivalence of average bioavailability. Journal of "
    "Pharmacokinetics and Biopharmaceutics 15, 657–680.",
    "sculley2010": "D. Sculley (2010). Web-scale k-means clustering. WWW.",
    "shapley1953": "L. S. Shapley (1953). A value for n-person games. In: Contributions to the "
    "Theory of Games II, 307–317. Princeton University Press.",
    "skellam1948": "J. G. Skellam (1948). A probability distribution derived from the binomial "
    "distribution by regarding the probability of success as variable between the sets of trials. "
    "Journal of the Royal Statistical Society B 10, 257–261.",
    "tango1998": "T. Tango (1998). Equivalence test and confidence interval for the difference in "
    "proportions for the paired-sample design. Statistics in Medicine 17, 891–908.",
    "taori2020": "R. Taori, A. Dave, V. Shankar, N. Carlini, B. Recht and L. Schmidt (2020). "
    "Measuring robustness to natural distribution shifts in image classification. NeurIPS.",
    "westfall1993": "P. H. Westfall and S. S. Young (1993). Resampling-Based Multiple Testing. "
    "Wiley.",
    "wilson1927": "E. B. Wilson (1927). Probable inference, the law of succession, and statistical "
    "inference. Journal of the American Statistical Association 22, 209–212.",
    "wu2018": "Z. Wu, Y. Xiong, S. X. Yu and D. Lin (2018). Unsupervised feature learning via "
    "non-parametric instance discrimination. CVPR.",
    "zadrozny2002": "B. Zadrozny and C. Elkan (2002). Transforming classifier scores into accurate "
    "multiclass probability estimates. KDD.",
}

# heads with a paper of their own; the others are textbook methods
OF_HEAD: dict[str, tuple[str, ...]] = {"knn": ("wu2018",), "ensemble": ("hinton2002",)}

# what is asked of the gap, how it is answered, and whose method that is, by the part that answers
METHODS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "gap": (
        "Is there a gap?",
        "Accuracies with Wilson's interval, their difference with Newcombe's, and a bootstrap "
        "within classes beside it",
        ("wilson1927", "newcombe1998", "efron1993"),
    ),
    "ledger": (
        "What does the gap go with?",
        "Images of the reference re-weighted to be like those of the target, one group of "
        "properties after the other; a Shapley value shares what several groups explain",
        ("shapley1953", "cai2023", "rubin1981"),
    ),
    "classes": (
        "Which classes lose more than the others?",
        "Class gaps with their noise reduced by a beta-binomial model; score tests adjusted for "
        "looking at every class",
        ("skellam1948", "farrington1990", "fisher1935", "benjamini1995", "lord1968"),
    ),
    "features": (
        "Which features moved, and does the head lean on them?",
        "Shifts between images of one class, tested by permutation with one limit for all "
        "features; each feature's part in the margin; features masked one at a time",
        ("hedges1985", "westfall1993", "janssen1997", "hays1963", "okada2013"),
    ),
    "difficulty": (
        "Are the images harder?",
        "The gap standardised by the model's own confidence and by what else is known of the "
        "images; calibration in bins of equal size",
        ("kitagawa1955", "naeini2015", "roelofs2022", "brier1950", "radovanovic2010"),
    ),
    "slices": (
        "Are there groups of images that lose more?",
        "Clusters of the train features, and groups found on one half of the images and tested on "
        "the other",
        ("sculley2010", "nie2021", "athey2016", "farrington1990"),
    ),
    "overlap": (
        "Does the gap lie where the two sets overlap?",
        "Three terms: harder images of kinds that both have, the same kinds with another outcome, "
        "kinds that the reference hardly has",
        ("cai2023", "kish1965"),
    ),
    "line": (
        "Do other models of this accuracy have the same gap?",
        "A straight line through other models' accuracies on probit axes",
        ("taori2020", "miller2021"),
    ),
    "without_labels": (
        "Could the drop have been foretold without labels?",
        "Four to six methods that read the model's confidence or its agreement with other models",
        ("garg2022", "guillory2021", "zadrozny2002", "baek2022"),
    ),
    "labels": (
        "How many errors are errors of the labels?",
        "Accuracy and gap by second opinions on the labels",
        ("beyer2020", "northcutt2021"),
    ),
    "leaks": (
        "Are images copies of others?",
        "Equal and nearly equal features, with a threshold calibrated on the train rows",
        ("facco2017",),
    ),
    "hypotheses": (
        "Does a changed head make the gap smaller?",
        "Each change registered before it is scored, and scored once, image by image beside the "
        "original; families judged together",
        ("mcnemar1947", "agresti2002", "holm1979", "schuirmann1987", "tango1998"),
    ),
    "selftest": (
        "How often are such findings false here?",
        "The same methods on halves of the reference, where there is nothing to find, and on gaps "
        "that were planted",
        ("clopper1934",),
    ),
}
