//! How well a probability ranks: area under the ROC curve with its bootstrap interval, the curve, sensitivity and specificity.

use std::collections::BTreeMap;

/// Draws of the bootstrap.
pub const DRAWS: usize = 2_000;
/// Its seed: the same answers give the same interval.
const SEED: u64 = 0x0F0E_A0CE;

/// One answered and labelled case.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scored<'a> {
    /// Probability of the positive, 0 to 1.
    pub probability: f64,
    /// The label says positive.
    pub positive: bool,
    /// Cases of one group (patient, slide) are drawn together; none stands for itself.
    pub group: Option<&'a str>,
}

/// A point of the ROC curve: "positive from `threshold` on".
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RocPoint {
    /// Least probability that counts as positive.
    pub threshold: f64,
    /// Share of the negative cases that are called positive.
    pub false_positive_rate: f64,
    /// Share of the positive cases that are.
    pub sensitivity: f64,
}

/// Area under the ROC curve: the share of pairs of a positive and a negative case in which the positive has the higher probability;
/// equal ones count half. None without both kinds.
pub fn auc(cases: &[Scored]) -> Option<f64> {
    let order = ascending(cases);
    weighted_auc(cases, &order, |_| 1)
}

/// 2.5 and 97.5 % quantiles of [`auc`] over [`DRAWS`] draws with replacement of whole groups; none where fewer than half of the draws
/// hold both kinds.
pub fn auc_interval(cases: &[Scored]) -> Option<(f64, f64)> {
    auc(cases)?;
    let (groups, count) = groups(cases);
    let order = ascending(cases);
    let mut chance = Chance(SEED);
    let mut weights = vec![0u32; count];
    let mut areas = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        weights.fill(0);
        (0..count).for_each(|_| weights[chance.below(count)] += 1);
        areas.extend(weighted_auc(cases, &order, |case| weights[groups[case]]));
    }
    if areas.len() * 2 < DRAWS {
        return None;
    }
    areas.sort_by(f64::total_cmp);
    Some((quantile(&areas, 0.025), quantile(&areas, 0.975)))
}

/// The curve from (0, 0) to (1, 1), one point for each probability that occurs. Empty without both kinds.
pub fn roc(cases: &[Scored]) -> Vec<RocPoint> {
    let positives = cases.iter().filter(|case| case.positive).count();
    let negatives = cases.len() - positives;
    if positives == 0 || negatives == 0 {
        return Vec::new();
    }
    let mut points = vec![RocPoint { threshold: f64::INFINITY, false_positive_rate: 0.0, sensitivity: 0.0 }];
    let (mut found, mut wrong) = (0, 0);
    for (place, index) in ascending(cases).iter().rev().enumerate() {
        let case = &cases[*index];
        if case.positive {
            found += 1
        } else {
            wrong += 1
        }
        let point = RocPoint {
            threshold: case.probability,
            false_positive_rate: f64::from(wrong) / negatives as f64,
            sensitivity: f64::from(found) / positives as f64,
        };
        match points.last_mut() {
            Some(last) if place > 0 && last.threshold.total_cmp(&case.probability).is_eq() => *last = point,
            _ => points.push(point),
        }
    }
    points
}

/// Share of the positive cases with at least `threshold`, and share of the negative ones below it.
pub fn sensitivity_specificity(cases: &[Scored], threshold: f64) -> (Option<f64>, Option<f64>) {
    let share = |positive: bool| {
        let right = cases.iter().filter(|c| c.positive == positive && (c.probability >= threshold) == positive).count();
        super::share(right, cases.iter().filter(|case| case.positive == positive).count())
    };
    (share(true), share(false))
}

/// Numbers of the cases, by rising probability.
fn ascending(cases: &[Scored]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cases.len()).collect();
    order.sort_by(|a, b| cases[*a].probability.total_cmp(&cases[*b].probability));
    order
}

/// The area with each case counted as often as `weight` says; none without both kinds.
fn weighted_auc(cases: &[Scored], order: &[usize], weight: impl Fn(usize) -> u32) -> Option<f64> {
    let (mut pairs, mut negatives_below, mut positives) = (0.0, 0.0, 0.0);
    for equal in order.chunk_by(|a, b| cases[*a].probability.total_cmp(&cases[*b].probability).is_eq()) {
        let (mut equal_positives, mut equal_negatives) = (0.0, 0.0);
        for case in equal {
            *(if cases[*case].positive { &mut equal_positives } else { &mut equal_negatives }) +=
                f64::from(weight(*case));
        }
        pairs += equal_positives * (negatives_below + equal_negatives / 2.0);
        negatives_below += equal_negatives;
        positives += equal_positives;
    }
    (positives > 0.0 && negatives_below > 0.0).then(|| pairs / (positives * negatives_below))
}

/// The number of each case's group, and how many there are.
fn groups(cases: &[Scored]) -> (Vec<usize>, usize) {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = 0;
    let mut fresh = || {
        count += 1;
        count - 1
    };
    let of = cases.iter().map(|case| match case.group {
        Some(group) => *known.entry(group).or_insert_with(&mut fresh),
        None => fresh(),
    });
    let of = of.collect();
    (of, count)
}

/// Of ascending values, linear between neighbours, as numpy's default.
fn quantile(ascending: &[f64], share: f64) -> f64 {
    let place = share * (ascending.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = ascending[(below + 1).min(ascending.len() - 1)];
    ascending[below] + (above - ascending[below]) * part
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to draw cases.
struct Chance(u64);

impl Chance {
    /// 0 to `count` - 1.
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The upper half of the product: below `count`, and as even as 64 bits allow.
        ((u128::from(mixed) * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn cases(scored: &[(f64, bool)]) -> Vec<Scored<'static>> {
        scored
            .iter()
            .map(|(probability, positive)| Scored { probability: *probability, positive: *positive, group: None })
            .collect()
    }

    #[test]
    fn the_area_is_the_share_of_pairs_in_order_and_equal_ones_count_half() {
        // Pairs: (0.8,0.3) and (0.8,0.5) in order, (0.5,0.3) in order, (0.5,0.5) half: 3.5 of 4.
        assert_eq!(auc(&cases(&[(0.3, false), (0.5, false), (0.5, true), (0.8, true)])), Some(0.875));
        assert_eq!(auc(&cases(&[(0.1, true), (0.9, false)])), Some(0.0));
        assert_eq!(auc(&cases(&[(0.1, true), (0.9, true)])), None);
        assert_eq!(auc(&[]), None);
    }

    #[test]
    fn the_area_is_that_of_scikit_learn() {
        let area = auc(&cases(&fixture::scored())).unwrap();
        assert!((area - REFERENCE_AUC).abs() < 1e-12, "{area}");
        let curve = roc(&cases(&fixture::scored()));
        let trapezoids: f64 = curve
            .windows(2)
            .map(|p| {
                (p[1].false_positive_rate - p[0].false_positive_rate) * (p[0].sensitivity + p[1].sensitivity) / 2.0
            })
            .sum();
        assert!((trapezoids - REFERENCE_AUC).abs() < 1e-12, "the curve encloses it: {trapezoids}");
        assert_eq!(curve.last().map(|point| (point.false_positive_rate, point.sensitivity)), Some((1.0, 1.0)));
    }

    #[test]
    fn the_interval_is_repeatable_holds_the_area_and_is_wider_when_cases_come_in_groups() {
        let scored = fixture::scored();
        let single = cases(&scored);
        let (low, high) = auc_interval(&single).unwrap();
        assert_eq!(auc_interval(&single), Some((low, high)));
        assert!(low < REFERENCE_AUC && REFERENCE_AUC < high && high - low < 0.2, "{low} {high}");
        // Hanley and McNeil's standard error for this area and these counts is 0.030.
        assert!((0.02..0.04).contains(&((high - low) / 3.92)), "{low} {high}");
        // Every case three times over is no new knowledge when the copies are one group.
        let names: Vec<String> = (0..scored.len()).map(|index| index.to_string()).collect();
        let tripled: Vec<Scored> =
            single.iter().zip(&names).flat_map(|(c, name)| [Scored { group: Some(name), ..*c }; 3]).collect();
        let blind: Vec<Scored> = tripled.iter().map(|case| Scored { group: None, ..*case }).collect();
        let width = |cases: &[Scored]| auc_interval(cases).map(|(low, high)| high - low).unwrap();
        assert!((width(&tripled) - (high - low)).abs() < 1e-12);
        assert!(width(&blind) < 0.7 * width(&tripled));
    }

    #[test]
    fn sensitivity_and_specificity_count_from_the_threshold_on() {
        let cases = cases(&[(0.2, false), (0.4, false), (0.4, true), (0.9, true), (0.1, true)]);
        let (sensitivity, specificity) = sensitivity_specificity(&cases, 0.4);
        assert_eq!((sensitivity, specificity), (Some(2.0 / 3.0), Some(0.5)));
        assert_eq!(sensitivity_specificity(&cases[..2], 0.3), (None, Some(0.5)));
        let (sensitivity, specificity) = sensitivity_specificity(&self::cases(&fixture::scored()), 0.3);
        assert_eq!((sensitivity.unwrap(), specificity.unwrap()), REFERENCE_AT_03);
    }

    // scikit-learn's roc_auc_score and confusion_matrix over the fixture.
    const REFERENCE_AUC: f64 = 0.730_780_810_919_309_6;
    const REFERENCE_AT_03: (f64, f64) = (92.0 / 106.0, 42.0 / 94.0);
}
