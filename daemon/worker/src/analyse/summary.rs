//! From the fields of a slide to one answer.
//!
//! In: what each field showed. Out: probability, classes, map, measurements, and which fields to look at again.
//!
//! **The probability of a slide** is the mean of the positive probability over the tenth of its answered fields in which
//! it is highest (at least three fields, or all of fewer). A tumour may cover a small part of a slide, so a mean over all
//! fields would hide it; the single highest field would be decided by the one worst mistake among thousands.
//! What is calibrated is the probability of one field. That of a slide is an order by which slides can be read, with the
//! bundle's thresholds for fields: nobody has calibrated it on slides, and the more fields a slide has the higher it tends
//! to be.
//!
//! Classes are the shares of the answered tissue that were called each. A slide of which less than a fifth of the tissue
//! passes the gate gets no answer: the reason is the one that turned most fields away.

use super::look::Stop;
use fovea_core::{ClassScore, Code, Measurement, Reason, Scores};
use fovea_infer::read::{self, Gated};
use fovea_infer::{Bands, Classes, Kind, Manifest};
use std::collections::BTreeMap;

/// One answered field in so many counts for the slide's probability.
const TOP_ONE_IN: usize = 10;
/// Least fields that do.
const TOP_MIN: usize = 3;
/// One field of tissue in so many must pass the gate.
const ANSWERED_ONE_IN: usize = 5;

/// What one field showed.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// Glass, or black.
    Background,
    /// It could not be decoded.
    Unreadable,
    /// Tissue that a gate turned away.
    TurnedAway(Box<Gated>),
    /// An answer.
    Seen(Seen),
}

/// The answer for one field.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Seen {
    /// Of the main answer, calibrated.
    probability: f32,
    /// Which class, by its place in the bundle; of a yes or no 1 is yes.
    class: u8,
    /// Share of the field that is stained.
    tissue: f32,
}

impl Seen {
    /// `scores`: of the field.
    pub fn of(manifest: &Manifest, scores: &Scores, tissue: f64) -> Self {
        let class = match (classes_of(manifest), scores.classes.first()) {
            // At most 10.
            (Some(of), Some(first)) => {
                of.classes.iter().position(|class| class.code == first.code && class.label == first.label).unwrap_or(0)
                    as u8
            }
            _ => u8::from(scores.probability >= scores.significant_from),
        };
        Self { probability: scores.probability as f32, class, tissue: tissue as f32 }
    }
}

/// All fields of a slide, enough of them answered.
pub struct Summary {
    main: Main,
    cells: Vec<Cell>,
}

/// The output that is the main answer.
struct Main {
    label: String,
    code: Code,
    bands: Bands,
    /// None of a yes or no.
    classes: Option<Classes>,
}

fn classes_of(manifest: &Manifest) -> Option<&Classes> {
    manifest.outputs().find_map(|(_, _, output)| match &output.kind {
        Kind::Classes(classes) => Some(classes),
        _ => None,
    })
}

impl Main {
    fn of(manifest: &Manifest) -> Option<Self> {
        manifest.outputs().find_map(|(_, _, output)| match &output.kind {
            Kind::Classes(of) => Some(Self {
                label: of.label.clone(),
                code: of.code.clone(),
                bands: of.bands,
                classes: Some(of.clone()),
            }),
            Kind::Binary(of) => {
                Some(Self { label: of.label.clone(), code: of.code.clone(), bands: of.bands, classes: None })
            }
            _ => None,
        })
    }

    /// How many classes a cell may show.
    fn count(&self) -> usize {
        self.classes.as_ref().map_or(2, |of| of.classes.len())
    }

    fn is_positive(&self, class: u8) -> bool {
        match &self.classes {
            Some(of) => of.classes.get(usize::from(class)).is_some_and(|class| class.positive),
            None => class == 1,
        }
    }
}

impl Summary {
    /// Judges whether there is an answer at all. `cells`: row by row.
    pub fn of(manifest: &Manifest, cells: Vec<Cell>) -> Result<Self, Stop> {
        let main = Main::of(manifest).ok_or_else(super::frame::no_answer)?;
        let answered = cells.iter().filter(|cell| matches!(cell, Cell::Seen(_))).count();
        let mut against: BTreeMap<&str, (usize, &Gated)> = BTreeMap::new();
        let mut turned_away = 0;
        for cell in &cells {
            if let Cell::TurnedAway(gated) = cell {
                turned_away += 1;
                against.entry(&gated.reason.code).or_insert((0, gated)).0 += 1;
            }
        }
        if answered + turned_away == 0 {
            let text = "no tissue found on the slide";
            return Err(Stop::Ungradable(Reason::new(
                "no_tissue",
                text,
                "Check the stain, then scan the slide again.",
            )));
        }
        // Of equally frequent reasons the last by its code: any rule will do that is always the same.
        if let Some((count, gated)) = against.into_values().max_by_key(|(count, _)| *count)
            && answered * ANSWERED_ONE_IN < answered + turned_away
        {
            let mut gated = gated.clone();
            let fields = format!(" ({count} of {} fields of tissue)", answered + turned_away);
            gated.reason.text.push_str(&fields);
            return Err(Stop::Gated(gated));
        }
        Ok(Self { main, cells })
    }

    fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.cells.iter().filter_map(|cell| match cell {
            Cell::Seen(seen) => Some(seen),
            _ => None,
        })
    }

    /// The slide's answer; the head of this file says what its probability is worth.
    pub fn scores(&self) -> Scores {
        let mut highest: Vec<f32> = self.seen().map(|seen| seen.probability).collect();
        highest.sort_by(|a, b| b.total_cmp(a));
        highest.truncate(highest.len().div_ceil(TOP_ONE_IN).max(TOP_MIN));
        let sum: f64 = highest.iter().map(|probability| f64::from(*probability)).sum();
        let classes: Vec<ClassScore> =
            self.main.classes.as_ref().map_or_else(Vec::new, |of| read::classes(of, &self.shares()));
        Scores {
            label: self.main.label.clone(),
            code: self.main.code.clone(),
            probability: (sum / highest.len().max(1) as f64).clamp(0.0, 1.0),
            classes,
            clear_below: self.main.bands.clear_below,
            significant_from: self.main.bands.significant_from,
        }
    }

    /// Of the answered fields, the share of each class.
    fn shares(&self) -> Vec<f32> {
        let mut counts = vec![0_u32; self.main.count()];
        for seen in self.seen() {
            if let Some(count) = counts.get_mut(usize::from(seen.class)) {
                *count += 1;
            }
        }
        let all = self.seen().count().max(1) as f32;
        counts.into_iter().map(|count| count as f32 / all).collect()
    }

    /// How much of the tissue is positive, and on how many fields that rests.
    pub fn measurements(&self) -> Vec<Measurement> {
        let answered = self.seen().count() as f64;
        let positive = self.seen().filter(|seen| self.main.is_positive(seen.class)).count() as f64;
        let tissue: f64 = self.seen().map(|seen| f64::from(seen.tissue)).sum();
        let own = |value: &str, meaning: String| Code::new("99FOVEA", value, &meaning);
        let told = |code, value| Measurement { code, value, unit: Code::new("UCUM", "1", "no units") };
        vec![
            told(own("tissue-fraction", shortened(&self.main.label)), positive / answered.max(1.0)),
            told(own("fields-answered", "Fields of tissue that were answered".to_owned()), answered),
            told(own("field-tissue", "Mean share of tissue in these fields".to_owned()), tissue / answered.max(1.0)),
        ]
    }

    /// What the digits of the map mean.
    pub fn labels(&self) -> Vec<String> {
        match &self.main.classes {
            Some(of) => of.classes.iter().map(|class| class.label.clone()).collect(),
            None => vec!["other tissue".to_owned(), self.main.label.clone()],
        }
    }

    /// One character a field.
    pub fn cells(&self) -> String {
        let sign = |cell: &Cell| match cell {
            Cell::Background => '.',
            Cell::Unreadable | Cell::TurnedAway(_) => '?',
            Cell::Seen(seen) => char::from(b'0' + seen.class.min(9)),
        };
        self.cells.iter().map(sign).collect()
    }

    /// At most `most` answered fields: the slide's answered fields are dealt out in order into so many parts, and of each
    /// the one with the most tissue is taken. Ascending.
    pub fn spread(&self, most: usize) -> Vec<usize> {
        let answered: Vec<(usize, f32)> = (0..)
            .zip(&self.cells)
            .filter_map(|(index, cell)| match cell {
                Cell::Seen(seen) => Some((index, seen.tissue)),
                _ => None,
            })
            .collect();
        let parts = most.min(answered.len());
        let bounds = |part: usize| part * answered.len() / parts.max(1);
        let fullest = |part: usize| {
            let fields = &answered[bounds(part)..bounds(part + 1)];
            // The first of equals.
            fields.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| *index)
        };
        (0..parts).filter_map(fullest).collect()
    }
}

/// A code's meaning has at most 64 characters.
fn shortened(label: &str) -> String {
    format!("Share of tissue: {label}").chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_infer::{Class, GateOutcome};

    fn class(value: &str, positive: bool) -> Class {
        let code = Code::new("99FOVEA", value, value);
        Class { value: value.to_owned(), label: value.to_owned(), code, positive }
    }

    fn summary(cells: Vec<Cell>) -> Summary {
        let code = Code::new("99FOVEA", "cancer", "Cancer");
        let bands = Bands { clear_below: 0.2, significant_from: 0.6 };
        let classes = vec![class("normal", false), class("adeno", true), class("squamous", true)];
        let of = Classes { label: "cancer".to_owned(), code: code.clone(), temperature: 1.0, bands, classes };
        let main = Main { label: "cancer".to_owned(), code, bands, classes: Some(of) };
        Summary { main, cells }
    }

    fn seen(probability: f32, class: u8) -> Cell {
        Cell::Seen(Seen { probability, class, tissue: 0.5 })
    }

    #[test]
    fn a_small_tumour_is_not_averaged_away_and_one_mistake_does_not_decide() {
        let mut cells = vec![seen(0.05, 0); 95];
        cells.extend(vec![seen(0.9, 1); 5]);
        let scores = summary(cells.clone()).scores();
        assert!((scores.probability - (5.0 * 0.9 + 5.0 * 0.05) / 10.0).abs() < 1e-6, "{}", scores.probability);
        let shares: Vec<(&str, f64)> = scores.classes.iter().map(|c| (&*c.label, c.probability)).collect();
        assert_eq!(shares.iter().map(|(label, _)| *label).collect::<Vec<_>>(), ["normal", "adeno", "squamous"]);
        assert!((shares[1].1 - 0.05).abs() < 1e-6);
        let fraction = &summary(cells).measurements()[0];
        assert!((fraction.value - 0.05).abs() < 1e-9 && fraction.code.meaning == "Share of tissue: cancer");
        let mut cells = vec![seen(0.0, 0); 9];
        cells.push(seen(0.99, 2));
        assert!((summary(cells).scores().probability - 0.33).abs() < 1e-6);
        assert!((summary(vec![seen(0.7, 1)]).scores().probability - 0.7).abs() < 1e-6);
    }

    #[test]
    fn the_map_has_a_sign_for_everything() {
        let gated = Gated { reason: Reason::new("fold", "a fold", ""), outcome: GateOutcome::Ungradable };
        let cells =
            vec![Cell::Background, Cell::Unreadable, Cell::TurnedAway(Box::new(gated)), seen(0.1, 0), seen(0.9, 2)];
        let summary = summary(cells);
        assert_eq!((summary.cells().as_str(), summary.labels().len()), (".??02", 3));
    }

    #[test]
    fn chosen_fields_are_spread_and_the_fullest_of_their_part() {
        let field = |tissue| Cell::Seen(Seen { probability: 0.5, class: 0, tissue });
        let mut cells = vec![Cell::Background; 3];
        cells.extend([0.2, 0.9, 0.3, 0.4, 0.4, 0.1].map(field));
        let summary = summary(cells);
        assert_eq!(summary.spread(3), [4, 6, 7]);
        assert_eq!(summary.spread(100), [3, 4, 5, 6, 7, 8]);
        assert!(summary.spread(0).is_empty());
    }
}
