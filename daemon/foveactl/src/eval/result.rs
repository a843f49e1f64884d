//! What became of one case, and the figures of all.
//!
//! In: cases, and what production says of them. Out: one [`CaseResult`] each, then one [`Summary`].
//! Promise: pure, but for reading the masks of a case; what was not answered counts where a site would feel it: as a missed area, as
//! nothing counted, in the rates, and never in AUC, sensitivity, specificity, accuracy, kappa or calibration. What is read field by
//! field has no map, and is compared with none.

use super::cases::Case;
use super::labels::{Meaning, Truth};
use super::metrics::agreement::Confusion;
use super::metrics::auc::{self, Scored};
use super::metrics::instances::Matched;
use super::metrics::masks::Overlap;
use super::metrics::{calibration, mean, median, share};
use super::truth::{self, Map, TruthError};
use fovea_core::{Outcome, Reason, Verdict};
use fovea_infer::{Bands, Kind, Manifest};
use fovea_worker::{Evaluated, LabelMap};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the figures are counted with.
#[derive(Clone, PartialEq, Debug)]
pub struct Ruler {
    /// What labels mean.
    pub meaning: Meaning,
    /// Bands of the main answer.
    pub bands: Bands,
    /// Words of the classes, in the bundle's order; empty without classes.
    pub classes: Vec<String>,
    /// Whether the bundle outlines something, and whether it counts nuclei.
    pub outlines: bool,
    /// See `outlines`.
    pub counts: bool,
}

impl Ruler {
    /// As the manifest has it.
    pub fn new(manifest: &Manifest, meaning: Meaning) -> Self {
        let kinds = || manifest.outputs().map(|(_, _, output)| &output.kind);
        let bands = kinds().find_map(|kind| match kind {
            Kind::Binary(binary) => Some(binary.bands),
            Kind::Classes(classes) => Some(classes.bands),
            _ => None,
        });
        let classes = kinds().find_map(|kind| match kind {
            Kind::Classes(classes) => Some(classes.classes.iter().map(|class| class.label.clone()).collect()),
            _ => None,
        });
        Self {
            meaning,
            // A checked manifest has a main answer.
            bands: bands.unwrap_or(Bands { clear_below: 0.5, significant_from: 0.5 }),
            classes: classes.unwrap_or_default(),
            outlines: kinds().any(|kind| matches!(kind, Kind::Mask(_))),
            counts: kinds().any(|kind| matches!(kind, Kind::Nuclei(_))),
        }
    }
}

/// What became of one case.
#[derive(Clone, PartialEq, Debug)]
pub struct CaseResult {
    /// As the table names it.
    pub file: String,
    /// What it is.
    pub truth: Option<Truth>,
    /// Its group.
    pub group: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why there is no answer.
    pub reason: Option<Reason>,
    /// Of the positive, 0 to 1.
    pub probability: Option<f64>,
    /// Level of the ordinal output.
    pub level: Option<usize>,
    /// Probability of each class, in the bundle's order.
    pub classes: Vec<f64>,
    /// That the picture is fit to be answered.
    pub fit_probability: Option<f64>,
    /// Against the binary mask, where there is one.
    pub overlap: Option<Overlap>,
    /// Against the instance map, where there is one.
    pub matched: Option<Matched>,
    /// It has a mask or an instance map, and was read field by field, of which there is no map to compare with.
    pub without_map: bool,
    /// Decode, preparation and inference, microseconds.
    pub latency_us: u64,
}

impl CaseResult {
    /// Compares what was said with what is. Says also when a mask had to be scaled.
    ///
    /// # Errors
    /// [`TruthError`] when a mask cannot be read, or is of another shape than the picture.
    pub fn of(case: &Case, looked: &Evaluated, ruler: &Ruler) -> Result<(Self, Option<String>), TruthError> {
        let has_truth = (ruler.outlines && !case.masks.is_empty()) || (ruler.counts && !case.instances.is_empty());
        let is_compared = |wanted: bool| wanted && !looked.in_fields;
        let mut scaled = None;
        let mut fitted = |map: Option<Map>, paths: &[PathBuf], found: Option<&LabelMap>| match (map, found, paths) {
            (Some(map), Some(found), [path, ..]) => {
                let (from, to) = ((map.width_px, map.height_px), (found.width_px, found.height_px));
                if from != to {
                    scaled = Some(format!(
                        "{}: its mask has {} x {} pixels and the picture {} x {}; the mask was scaled",
                        case.file, from.0, from.1, to.0, to.1
                    ));
                }
                map.fitted(path, &case.file, to).map(Some)
            }
            (map, ..) => Ok(map),
        };
        let mask = if is_compared(ruler.outlines) {
            fitted(truth::masks(&case.masks)?, &case.masks, looked.mask.as_ref())?
        } else {
            None
        };
        let things = if is_compared(ruler.counts) {
            fitted(truth::instances(&case.instances)?, &case.instances, looked.nuclei.as_ref())?
        } else {
            None
        };
        let overlap = mask.map(|mask| match &looked.mask {
            Some(found) => Overlap::of(&found.labels, &mask.labels),
            None => Overlap::missed(&mask.labels),
        });
        let matched = things.map(|truth| match &looked.nuclei {
            Some(found) => Matched::of(&found.labels, &truth.labels),
            None => Matched::missed(&truth.labels),
        });
        let analysis = &looked.analysis;
        let (outcome, reason, scores) = match &analysis.verdict {
            Verdict::Scored(scores) => (Outcome::Finding, None, Some(scores)),
            Verdict::Ungradable(reason) => (Outcome::Ungradable, Some(reason.clone()), None),
            Verdict::NotAnalysed(reason) => (Outcome::NotAnalysed, Some(reason.clone()), None),
        };
        let of_class = |label: &String| {
            scores
                .and_then(|scores| scores.classes.iter().find(|class| class.label == *label))
                .map_or(0.0, |c| c.probability)
        };
        let times = analysis.times;
        let result = Self {
            file: case.file.clone(),
            truth: case.truth,
            group: case.group.clone(),
            outcome,
            reason,
            probability: scores.map(|scores| scores.probability),
            level: scores.and(looked.level).map(|level| level as usize),
            classes: if scores.is_some() { ruler.classes.iter().map(of_class).collect() } else { Vec::new() },
            fit_probability: looked.fit_probability,
            overlap,
            matched,
            without_map: has_truth && looked.in_fields,
            latency_us: times.decode_us + times.preprocess_us + times.infer_us,
        };
        Ok((result, scaled))
    }

    /// The class with the greatest probability.
    pub fn class(&self) -> Option<usize> {
        (0..self.classes.len()).max_by(|a, b| self.classes[*a].total_cmp(&self.classes[*b]))
    }

    /// How wrong it is, 0 to 1: the greatest of the distance of the probability from the label, the area that does not overlap, and the
    /// things without a partner. A positive case without an answer is as wrong as can be. None where nothing can be compared.
    pub fn wrongness(&self, meaning: &Meaning) -> Option<f64> {
        let of_label = match (self.truth, self.probability) {
            (Some(Truth::Class(class)), Some(_)) if !self.classes.is_empty() => {
                Some(1.0 - self.classes.get(class).copied().unwrap_or(0.0))
            }
            (Some(truth), Some(probability)) if meaning.is_positive(truth) => Some(1.0 - probability),
            (Some(_), Some(probability)) => Some(probability),
            (Some(truth), None) if meaning.is_positive(truth) => Some(1.0),
            _ => None,
        };
        let of_area = self.overlap.map(|overlap| 1.0 - overlap.dice());
        let of_things = self.matched.map(|matched| 1.0 - matched.ap50());
        [of_label, of_area, of_things].into_iter().flatten().max_by(f64::total_cmp)
    }

    /// One line for programs.
    pub fn line(&self, ruler: &Ruler) -> CaseLine<'_> {
        let classes = ruler.classes.iter().cloned().zip(self.classes.iter().copied()).collect();
        CaseLine {
            file: &self.file,
            outcome: self.outcome,
            label: self.truth.map(|truth| ruler.meaning.word(truth)),
            probability: self.probability,
            level: self.level,
            classes,
            fit_probability: self.fit_probability,
            dice: self.overlap.map(Overlap::dice),
            iou: self.overlap.map(Overlap::iou),
            ap50: self.matched.map(Matched::ap50),
            count_found: self.matched.map(|matched| matched.found),
            count_true: self.matched.map(|matched| matched.truth),
            reason: self.reason.as_ref().map(|reason| reason.text.as_str()),
            reason_code: self.reason.as_ref().map(|reason| reason.code.as_str()),
            latency_ms: self.latency_us as f64 / 1e3,
        }
    }
}

/// What `--json` prints of one case.
#[derive(Serialize)]
pub struct CaseLine<'a> {
    file: &'a str,
    outcome: Outcome,
    label: Option<String>,
    probability: Option<f64>,
    level: Option<usize>,
    classes: BTreeMap<String, f64>,
    fit_probability: Option<f64>,
    dice: Option<f64>,
    iou: Option<f64>,
    ap50: Option<f64>,
    count_found: Option<usize>,
    count_true: Option<usize>,
    reason: Option<&'a str>,
    reason_code: Option<&'a str>,
    latency_ms: f64,
}

/// The figures of all cases; the last line that `--json` prints. None where a figure does not apply.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// Cases.
    pub n: usize,
    /// See [`auc::auc`]; of classes the positive ones against the rest.
    pub auc: Option<f64>,
    /// Lower end of its 95 % interval.
    pub auc_low: Option<f64>,
    /// Upper end.
    pub auc_high: Option<f64>,
    /// At `clear_below`: everything that is not clear counts as positive.
    pub sensitivity: Option<f64>,
    /// Likewise.
    pub specificity: Option<f64>,
    /// See [`calibration::ece`], of the probability of the positive.
    pub ece: Option<f64>,
    /// Of the most probable class where labels are classes; else of "positive from one half on".
    pub accuracy: Option<f64>,
    /// Quadratic, where labels are levels.
    pub kappa: Option<f64>,
    /// Mean over cases with a mask.
    pub dice: Option<f64>,
    /// Likewise.
    pub iou: Option<f64>,
    /// Mean over cases with an instance map.
    pub ap50: Option<f64>,
    /// Median of |found - true| / true over cases with an instance map that holds anything.
    pub count_error: Option<f64>,
    /// Share of the cases that were found ungradable.
    pub ungradable_rate: Option<f64>,
    /// Median over the answered cases, milliseconds.
    pub latency_ms_p50: Option<f64>,
    /// What the labels were taken for; none where not one counted.
    pub labels_read_as: Option<&'static str>,
    /// Share of the cases that were not analysed.
    pub not_analysed_rate: Option<f64>,
    /// Cases with an answer.
    pub n_answered: usize,
    /// Of these, with a label.
    pub n_scored: usize,
    /// Of these, positive.
    pub n_positive: usize,
    /// Cases with a binary mask.
    pub n_masks: usize,
    /// Cases with an instance map.
    pub n_instances: usize,
    /// Cases with a mask or instance map that were read field by field, and so are in neither.
    pub n_without_map: usize,
    /// At `significant_from`.
    pub sensitivity_significant: Option<f64>,
    /// Likewise.
    pub specificity_significant: Option<f64>,
    /// Of the main answer.
    pub clear_below: f64,
    /// Of the main answer.
    pub significant_from: f64,
    /// Share of the cases with the right level, where labels are levels.
    pub level_accuracy: Option<f64>,
    /// Bundle id, version and hash.
    pub bundle: String,
    /// See there.
    pub version: String,
    /// SHA-256 of `bundle.toml`.
    pub sha256: String,
}

/// The answered and labelled cases.
pub fn scored<'a>(results: &'a [CaseResult], meaning: &Meaning) -> Vec<Scored<'a>> {
    let one = |result: &'a CaseResult| {
        let positive = meaning.is_positive(result.truth?);
        Some(Scored { probability: result.probability?, positive, group: result.group.as_deref() })
    };
    results.iter().filter_map(one).collect()
}

/// True against found: levels, classes, or positive or not from one half on. None where nothing is labelled.
pub fn confusion(results: &[CaseResult], ruler: &Ruler) -> Option<(Vec<String>, Confusion)> {
    let answered = || results.iter().filter_map(|result| Some((result, result.truth?, result.probability?)));
    let (words, pairs): (Vec<String>, Vec<(usize, usize)>) = match &ruler.meaning {
        Meaning::Levels { words, .. } => {
            let pair = |(result, truth, _): (&CaseResult, Truth, f64)| match truth {
                Truth::Level(level) => Some((level, result.level?)),
                _ => None,
            };
            (words.clone(), answered().filter_map(pair).collect())
        }
        Meaning::Classes { values, .. } => {
            let pair = |(result, truth, _): (&CaseResult, Truth, f64)| match truth {
                Truth::Class(class) => Some((class, result.class()?)),
                _ => None,
            };
            (values.clone(), answered().filter_map(pair).collect())
        }
        Meaning::Binary => {
            let pair = |(_, truth, p): (&CaseResult, Truth, f64)| {
                (usize::from(ruler.meaning.is_positive(truth)), usize::from(p >= 0.5))
            };
            (vec!["negative".to_owned(), "positive".to_owned()], answered().map(pair).collect())
        }
    };
    (!pairs.is_empty()).then(|| (words.clone(), Confusion::of(words.len(), pairs)))
}

impl Summary {
    /// Counts everything; `model` is id, version and hash of the bundle.
    pub fn of(results: &[CaseResult], ruler: &Ruler, model: &fovea_core::ModelRef) -> Self {
        let scored = scored(results, &ruler.meaning);
        let pairs: Vec<(f64, bool)> = scored.iter().map(|case| (case.probability, case.positive)).collect();
        let interval = auc::auc_interval(&scored);
        let (sensitivity, specificity) = auc::sensitivity_specificity(&scored, ruler.bands.clear_below);
        let (sensitivity_significant, specificity_significant) =
            auc::sensitivity_specificity(&scored, ruler.bands.significant_from);
        let confusion = confusion(results, ruler).map(|(_, confusion)| confusion);
        let is_levels = matches!(ruler.meaning, Meaning::Levels { .. });
        let at_half = share(pairs.iter().filter(|(p, positive)| (*p >= 0.5) == *positive).count(), pairs.len());
        let own = confusion.as_ref().and_then(Confusion::accuracy);
        let rate = |outcome| share(results.iter().filter(|result| result.outcome == outcome).count(), results.len());
        let answered = || results.iter().filter(|result| result.outcome == Outcome::Finding);
        let overlaps = || results.iter().filter_map(|result| result.overlap);
        let matches = || results.iter().filter_map(|result| result.matched);
        Self {
            n: results.len(),
            auc: auc::auc(&scored),
            auc_low: interval.map(|(low, _)| low),
            auc_high: interval.map(|(_, high)| high),
            sensitivity,
            specificity,
            ece: calibration::ece(&pairs),
            accuracy: if is_levels { at_half } else { own },
            kappa: confusion.as_ref().filter(|_| is_levels).and_then(Confusion::quadratic_kappa),
            dice: mean(overlaps().map(Overlap::dice)),
            iou: mean(overlaps().map(Overlap::iou)),
            ap50: mean(matches().map(Matched::ap50)),
            count_error: median(matches().filter_map(Matched::count_error).collect()),
            ungradable_rate: rate(Outcome::Ungradable),
            latency_ms_p50: median(answered().map(|result| result.latency_us as f64 / 1e3).collect()),
            labels_read_as: results.iter().any(|result| result.truth.is_some()).then(|| ruler.meaning.name()),
            not_analysed_rate: rate(Outcome::NotAnalysed),
            n_answered: answered().count(),
            n_scored: scored.len(),
            n_positive: scored.iter().filter(|case| case.positive).count(),
            n_masks: overlaps().count(),
            n_instances: matches().count(),
            n_without_map: results.iter().filter(|result| result.without_map).count(),
            sensitivity_significant,
            specificity_significant,
            clear_below: ruler.bands.clear_below,
            significant_from: ruler.bands.significant_from,
            level_accuracy: own.filter(|_| is_levels),
            bundle: model.id.clone(),
            version: model.version.clone(),
            sha256: model.sha256.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(truth: Option<Truth>, probability: Option<f64>) -> CaseResult {
        CaseResult {
            file: "x".to_owned(),
            truth,
            group: None,
            outcome: if probability.is_some() { Outcome::Finding } else { Outcome::Ungradable },
            reason: None,
            probability,
            level: None,
            classes: Vec::new(),
            fit_probability: None,
            overlap: None,
            matched: None,
            without_map: false,
            latency_us: 2_000,
        }
    }

    fn ruler(meaning: Meaning) -> Ruler {
        let bands = Bands { clear_below: 0.3, significant_from: 0.7 };
        Ruler { meaning, bands, classes: Vec::new(), outlines: true, counts: true }
    }

    fn summary(results: &[CaseResult], meaning: Meaning) -> Summary {
        let sha256 = fovea_core::Sha256::of(b"");
        let model = fovea_core::ModelRef { id: "eye".to_owned(), version: "1".to_owned(), sha256 };
        Summary::of(results, &ruler(meaning), &model)
    }

    #[test]
    fn what_was_not_answered_counts_in_rates_and_areas_only() {
        let mut missed = result(Some(Truth::Binary(true)), None);
        missed.overlap = Some(Overlap { both: 0, found: 0, truth: 10 });
        missed.matched = Some(Matched { pairs: 0, found: 0, truth: 4 });
        let mut right = result(Some(Truth::Binary(true)), Some(0.8));
        right.overlap = Some(Overlap { both: 5, found: 5, truth: 5 });
        right.matched = Some(Matched { pairs: 3, found: 4, truth: 4 });
        let mut failed = result(None, None);
        failed.outcome = Outcome::NotAnalysed;
        let summary = summary(&[missed, right, failed, result(Some(Truth::Binary(false)), Some(0.4))], Meaning::Binary);
        assert_eq!((summary.n, summary.n_answered, summary.n_scored, summary.n_positive), (4, 2, 2, 1));
        assert_eq!((summary.auc, summary.sensitivity, summary.specificity), (Some(1.0), Some(1.0), Some(0.0)));
        assert_eq!((summary.sensitivity_significant, summary.specificity_significant), (Some(1.0), Some(1.0)));
        assert_eq!((summary.accuracy, summary.kappa), (Some(1.0), None));
        assert_eq!((summary.dice, summary.iou, summary.ap50), (Some(0.5), Some(0.5), Some(0.3)));
        assert_eq!((summary.count_error, summary.n_masks, summary.n_instances), (Some(0.5), 2, 2));
        assert_eq!((summary.ungradable_rate, summary.not_analysed_rate), (Some(0.25), Some(0.25)));
        assert_eq!(summary.latency_ms_p50, Some(2.0));
    }

    #[test]
    fn levels_give_kappa_and_classes_the_most_probable_one() {
        let words = ["none", "mild", "bad"].map(str::to_owned).to_vec();
        let level = |is, found, p| CaseResult { level: Some(found), ..result(Some(Truth::Level(is)), Some(p)) };
        let levels = [level(0, 0, 0.1), level(0, 1, 0.2), level(1, 1, 0.4), level(2, 2, 0.9)];
        let levels = summary(&levels, Meaning::Levels { words, positive_from: 2 });
        assert_eq!((levels.kappa, levels.accuracy, levels.level_accuracy), (Some(0.8), Some(1.0), Some(0.75)));
        assert_eq!((levels.n_positive, levels.auc), (1, Some(1.0)));
        let class = |is, classes: [f64; 3]| CaseResult {
            classes: classes.to_vec(),
            ..result(Some(Truth::Class(is)), Some(classes[1] + classes[2]))
        };
        let classes = [class(0, [0.8, 0.1, 0.1]), class(1, [0.4, 0.5, 0.1]), class(2, [0.1, 0.5, 0.4])];
        let values = ["benign", "adeno", "squamous"].map(str::to_owned).to_vec();
        let classes = summary(&classes, Meaning::Classes { values, positive: vec![false, true, true] });
        assert_eq!((classes.accuracy, classes.kappa, classes.auc), (Some(2.0 / 3.0), None, Some(1.0)));
    }

    #[test]
    fn the_last_line_has_its_keys_in_their_order_and_null_where_a_figure_does_not_apply() {
        let line = serde_json::to_string(&summary(&[result(None, None)], Meaning::Binary)).unwrap();
        let keys: Vec<&str> = line.split(['{', ',']).filter_map(|pair| pair.split('"').nth(1)).take(16).collect();
        let wanted = "n auc auc_low auc_high sensitivity specificity ece accuracy kappa dice iou ap50 count_error ungradable_rate latency_ms_p50 labels_read_as";
        assert_eq!(keys.join(" "), wanted);
        assert!(line.contains("\"auc\":null") && line.contains("\"ungradable_rate\":1.0"), "{line}");
    }

    #[test]
    fn what_is_read_field_by_field_is_compared_with_no_map_and_anything_else_without_a_map_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_mask.png");
        let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 3, 2);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&[0, 1, 1, 0, 1, 2]).unwrap();
        let case = Case {
            file: "a.png".to_owned(),
            path: "a.png".into(),
            truth: None,
            group: None,
            masks: vec![path.clone()],
            instances: vec![path],
        };
        let analysis = fovea_core::Analysis::not_analysed(Reason::new("x", "x", ""));
        let mut looked =
            Evaluated { analysis, fit_probability: None, level: None, mask: None, nuclei: None, in_fields: false };
        let missed = CaseResult::of(&case, &looked, &ruler(Meaning::Binary)).unwrap().0;
        assert_eq!(missed.overlap, Some(Overlap { both: 0, found: 0, truth: 4 }));
        assert_eq!((missed.matched, missed.without_map), (Some(Matched { pairs: 0, found: 0, truth: 2 }), false));
        looked.in_fields = true;
        let in_fields = CaseResult::of(&case, &looked, &ruler(Meaning::Binary)).unwrap().0;
        assert_eq!((in_fields.overlap, in_fields.matched, in_fields.without_map), (None, None, true));
        let summary = summary(&[missed, in_fields], Meaning::Binary);
        assert_eq!((summary.n_masks, summary.n_instances, summary.n_without_map), (1, 1, 1));
        // A map of another shape is no map of this picture.
        looked.in_fields = false;
        looked.mask = Some(LabelMap { width_px: 2, height_px: 3, labels: vec![0; 6] });
        let error = CaseResult::of(&case, &looked, &ruler(Meaning::Binary)).unwrap_err().to_string();
        assert!(error.contains("a_mask.png has 3 x 2") && error.contains("a.png 2 x 3"), "{error}");
    }

    #[test]
    fn the_worst_is_what_is_farthest_from_its_label_or_mask() {
        let meaning = Meaning::Binary;
        assert_eq!(result(Some(Truth::Binary(true)), Some(0.2)).wrongness(&meaning), Some(0.8));
        assert_eq!(result(Some(Truth::Binary(false)), Some(0.2)).wrongness(&meaning), Some(0.2));
        assert_eq!(result(Some(Truth::Binary(true)), None).wrongness(&meaning), Some(1.0));
        assert_eq!(result(Some(Truth::Binary(false)), None).wrongness(&meaning), None);
        let matched = Some(Matched { pairs: 0, found: 0, truth: 3 });
        assert_eq!(CaseResult { matched, ..result(None, None) }.wrongness(&meaning), Some(1.0));
        let overlap = Some(Overlap { both: 0, found: 1, truth: 1 });
        assert_eq!(CaseResult { overlap, ..result(None, Some(0.5)) }.wrongness(&meaning), Some(1.0));
    }
}
