//! `labels.csv`: which files a site labelled, and what its labels mean to a bundle.
//!
//! In: CSV with a header line; columns `file`, `label` and perhaps `group`, others are passed over. Out: [`Row`]s, and their [`Truth`]s.
//! Promise: a label that is not understood is an error that names its line; none is guessed.

use fovea_infer::{Kind, Manifest};
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Component, Path};

/// Most rows that are read.
const ROWS_MAX: usize = 1_000_000;
/// Longest table.
const TABLE_BYTES_MAX: u64 = 256 << 20;

/// Why a table of labels cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// Not CSV, or rows of different lengths.
    #[error("the table cannot be read")]
    Csv(#[from] csv::Error),
    /// Not to be read at all.
    #[error("the table cannot be read")]
    Read(#[from] io::Error),
    /// Longer than [`TABLE_BYTES_MAX`].
    #[error("the table is longer than {TABLE_BYTES_MAX} bytes")]
    TooLong,
    /// Another separator than the comma.
    #[error("the columns are separated by {separator}: they must be separated by commas")]
    Separator {
        /// In words.
        separator: &'static str,
    },
    /// A column is missing.
    #[error("the header line has no column `{column}`: it must be file,label or file,label,group")]
    Column {
        /// Which.
        column: &'static str,
    },
    /// A file twice.
    #[error("line {line}: {file} stands in line {first} already")]
    Twice {
        /// Where.
        line: u64,
        /// Where before.
        first: u64,
        /// Which.
        file: String,
    },
    /// A path that leads out of the folder of images, or none.
    #[error("line {line}: the file must be a path relative to --images")]
    File {
        /// Where.
        line: u64,
    },
    /// A label that the bundle has no meaning for.
    #[error("line {line}: the label {label:?} is none of this bundle's: {known}")]
    Unknown {
        /// Where.
        line: u64,
        /// The label, shortened.
        label: String,
        /// What would be known.
        known: String,
    },
    /// No rows, or more than [`ROWS_MAX`].
    #[error("the table has {rows} rows, it must have 1 to {ROWS_MAX}")]
    Rows {
        /// How many.
        rows: usize,
    },
}

/// One labelled file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Line of the table, from 1.
    pub line: u64,
    /// Relative to the folder of images.
    pub file: String,
    /// As written; none where empty: the row counts for masks only.
    pub label: Option<String>,
    /// Cases of one group are drawn together for the interval.
    pub group: Option<String>,
}

/// Reads the table. Without a column `label` every label is empty, which only makes sense with masks.
///
/// # Errors
/// [`LabelsError`].
pub fn read(from: impl Read, label_needed: bool) -> Result<Vec<Row>, LabelsError> {
    let mut bytes = Vec::new();
    if from.take(TABLE_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > TABLE_BYTES_MAX {
        return Err(LabelsError::TooLong);
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let mut table = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = table.headers()?.clone();
    let column = |name: &str| header.iter().position(|cell| cell.eq_ignore_ascii_case(name));
    let file_at = column("file").ok_or_else(|| without_file(&header))?;
    let (label_at, group_at) = (column("label"), column("group"));
    if label_needed && label_at.is_none() {
        return Err(LabelsError::Column { column: "label" });
    }
    let (mut rows, mut seen): (Vec<Row>, HashMap<String, u64>) = (Vec::new(), HashMap::new());
    let mut lines = Lines { bytes, at: 0, line: 1 };
    for record in table.records() {
        let record = record?;
        let line = lines.line_of(record.position().map_or(0, csv::Position::byte));
        let cell =
            |at: Option<usize>| at.and_then(|at| record.get(at)).filter(|text| !text.is_empty()).map(str::to_owned);
        let file = cell(Some(file_at)).ok_or(LabelsError::File { line })?;
        let stays = Path::new(&file).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !stays {
            return Err(LabelsError::File { line });
        }
        if let Some(first) = seen.insert(file.clone(), line) {
            return Err(LabelsError::Twice { line, first, file });
        }
        rows.push(Row { line, file, label: cell(label_at), group: cell(group_at) });
        if rows.len() > ROWS_MAX {
            break;
        }
    }
    if (1..=ROWS_MAX).contains(&rows.len()) { Ok(rows) } else { Err(LabelsError::Rows { rows: rows.len() }) }
}

fn without_file(header: &csv::StringRecord) -> LabelsError {
    let has = |separator| header.iter().any(|cell| cell.contains(separator));
    match (has(';'), has('\t')) {
        (true, _) => LabelsError::Separator { separator: "semicolons" },
        (_, true) => LabelsError::Separator { separator: "tabs" },
        _ => LabelsError::Column { column: "file" },
    }
}

/// Numbers of lines as an editor shows them. The reader's own ones are too small after empty lines and after lines that end in CR LF,
/// because it finds the rest of the ending only with the next record.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// Line of the record that starts at `byte` or at the first character after the line endings there. `byte` must not fall.
    fn line_of(&mut self, byte: u64) -> u64 {
        let end_of_line = |at: usize| match self.bytes.get(at) {
            Some(b'\n') => true,
            Some(b'\r') => self.bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        while (self.at as u64) < byte || matches!(self.bytes.get(self.at), Some(b'\n' | b'\r')) {
            self.line += u64::from(end_of_line(self.at));
            self.at += 1;
        }
        self.line
    }
}

/// What the labels of one table are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// Positive or not.
    Binary,
    /// Levels, 0 and up; positive from `positive_from` on.
    Levels {
        /// Words of the levels.
        words: Vec<String>,
        /// Least level that is positive.
        positive_from: usize,
    },
    /// Classes of the bundle.
    Classes {
        /// Values of the classes.
        values: Vec<String>,
        /// Which of them are positive.
        positive: Vec<bool>,
    },
}

/// What one case is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    /// Positive or not.
    Binary(bool),
    /// Its level.
    Level(usize),
    /// Its class, by its place in the bundle.
    Class(usize),
}

impl Meaning {
    /// One word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Levels { .. } => "level",
            Self::Classes { .. } => "class",
        }
    }

    /// Whether a case counts as positive.
    pub fn is_positive(&self, truth: Truth) -> bool {
        match (self, truth) {
            (_, Truth::Binary(positive)) => positive,
            (Self::Levels { positive_from, .. }, Truth::Level(level)) => level >= *positive_from,
            (Self::Classes { positive, .. }, Truth::Class(class)) => positive.get(class) == Some(&true),
            _ => false,
        }
    }

    /// Of two truths of one picture the worse: positive before not, the higher level, else the first.
    pub fn worse(&self, a: Truth, b: Truth) -> Truth {
        match (a, b) {
            (Truth::Level(a), Truth::Level(b)) => Truth::Level(a.max(b)),
            _ if self.is_positive(b) && !self.is_positive(a) => b,
            _ => a,
        }
    }

    /// The truth in the words of the table.
    pub fn word(&self, truth: Truth) -> String {
        match (self, truth) {
            (_, Truth::Binary(positive)) => u8::from(positive).to_string(),
            (_, Truth::Level(level)) => level.to_string(),
            (Self::Classes { values, .. }, Truth::Class(class)) => values.get(class).cloned().unwrap_or_default(),
            (_, Truth::Class(class)) => class.to_string(),
        }
    }
}

/// A table that a bundle was asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Truths {
    /// What the labels mean.
    pub meaning: Meaning,
    /// What each row is; none where its label is empty, and everywhere where the labels were put aside.
    pub of_rows: Vec<Option<Truth>>,
    /// The labels say something, but not one of them anything to this bundle: only masks count.
    pub put_aside: bool,
}

/// What all labels together mean to a bundle, and what each row is.
///
/// - A bundle with classes: every label is a class (its value or its words), or every label is 0 or 1 (positive or not).
/// - A bundle with levels: where any label is above 1 (or a level's word) all are levels, and the positive ones are those from
///   level 2 on (level 1 where the bundle has no more), which is what the main answer of such a bundle means; else 0 or 1.
/// - Any other bundle: 0 or 1. For 0 and 1 also no and yes, false and true, negative and positive.
///
/// With masks a table may be about something else altogether, such as the number of nuclei: where no label at all means anything to
/// the bundle, or all are numbers and the bundle has classes, they are put aside.
///
/// # Errors
/// [`LabelsError::Unknown`] names the first line that is not understood.
pub fn truths(manifest: &Manifest, rows: &[Row], with_masks: bool) -> Result<Truths, LabelsError> {
    let answers = answers(manifest);
    truths_of(&answers, rows).or_else(|error| {
        if with_masks && matches!(error, LabelsError::Unknown { .. }) && says_nothing_to(&answers, rows) {
            Ok(Truths { meaning: Meaning::Binary, of_rows: vec![None; rows.len()], put_aside: true })
        } else {
            Err(error)
        }
    })
}

/// Whether no label is one that the bundle could read in any of the meanings that a table for it may have.
fn says_nothing_to(answers: &Answers, rows: &[Row]) -> bool {
    let labels = || rows.iter().filter_map(|row| row.label.as_deref());
    match answers {
        Answers::Binary => labels().all(|label| yes_or_no(label).is_none()),
        Answers::Levels(words) => labels().all(|label| {
            let is_level = whole(label).is_some_and(|level| level < words.len());
            yes_or_no(label).is_none() && !is_level && !words.iter().any(|word| same(label, word))
        }),
        Answers::Classes(classes) => {
            let is_class =
                |label: &str| classes.iter().any(|(value, words, _)| same(label, value) || same(label, words));
            // Among counts a 0 or a 1 is a count too.
            let are_counts = labels().all(|label| whole(label).is_some());
            labels().all(|label| !is_class(label) && (are_counts || yes_or_no(label).is_none()))
        }
    }
}

/// What one label is, in the meaning of its table.
type Reading<'a> = Box<dyn Fn(&str) -> Option<Truth> + 'a>;

fn truths_of(answers: &Answers, rows: &[Row]) -> Result<Truths, LabelsError> {
    let (meaning, read): (Meaning, Reading<'_>) = match answers {
        Answers::Classes(classes) => {
            let is_class = move |label: &str| {
                classes.iter().position(|(value, words, _)| same(label, value) || same(label, words))
            };
            // Decided by the first label: a table of classes that holds one misspelt is an error about that one.
            let first = rows.iter().find_map(|row| row.label.as_deref());
            if first.is_some_and(|label| is_class(label).is_none() && yes_or_no(label).is_some()) {
                (Meaning::Binary, Box::new(|label| yes_or_no(label).map(Truth::Binary)))
            } else {
                let values = classes.iter().map(|(value, ..)| value.clone()).collect();
                let positive = classes.iter().map(|(.., positive)| *positive).collect();
                (Meaning::Classes { values, positive }, Box::new(move |label| is_class(label).map(Truth::Class)))
            }
        }
        Answers::Levels(words) => {
            let level = move |label: &str| {
                let by_word = words.iter().position(|word| same(label, word));
                whole(label).filter(|level| *level < words.len()).or(by_word)
            };
            let is_level = |label: &str| yes_or_no(label).is_none() && level(label).is_some();
            if rows.iter().filter_map(|row| row.label.as_deref()).any(is_level) {
                let positive_from = 2.min(words.len() - 1);
                (
                    Meaning::Levels { words: words.clone(), positive_from },
                    Box::new(move |label| level(label).map(Truth::Level)),
                )
            } else {
                (Meaning::Binary, Box::new(|label| yes_or_no(label).map(Truth::Binary)))
            }
        }
        Answers::Binary => (Meaning::Binary, Box::new(|label| yes_or_no(label).map(Truth::Binary))),
    };
    let of = |row: &Row| match row.label.as_deref() {
        None => Ok(None),
        Some(label) => read(label).map(Some).ok_or_else(|| LabelsError::Unknown {
            line: row.line,
            label: label.chars().take(40).collect(),
            known: known(&meaning),
        }),
    };
    let of_rows = rows.iter().map(of).collect::<Result<_, _>>()?;
    Ok(Truths { meaning, of_rows, put_aside: false })
}

fn known(meaning: &Meaning) -> String {
    match meaning {
        Meaning::Binary => "0 or 1".to_owned(),
        Meaning::Levels { words, .. } => format!("0 to {}", words.len() - 1),
        Meaning::Classes { values, .. } => format!("{} (or all 0 and 1)", values.join(", ")),
    }
}

enum Answers {
    Binary,
    /// Words of the levels, at least 2.
    Levels(Vec<String>),
    /// Value, words, whether positive.
    Classes(Vec<(String, String, bool)>),
}

fn answers(manifest: &Manifest) -> Answers {
    let classes = manifest.outputs().find_map(|(_, _, output)| match &output.kind {
        Kind::Classes(classes) => Some(&classes.classes),
        _ => None,
    });
    let levels = manifest.outputs().find_map(|(_, _, output)| match &output.kind {
        Kind::Ordinal(ordinal) if ordinal.levels.len() > 1 => Some(ordinal.levels.clone()),
        _ => None,
    });
    match (classes, levels) {
        (Some(classes), _) => Answers::Classes(
            classes.iter().map(|class| (class.value.clone(), class.label.clone(), class.positive)).collect(),
        ),
        (None, Some(levels)) => Answers::Levels(levels),
        (None, None) => Answers::Binary,
    }
}

fn same(label: &str, word: &str) -> bool {
    label.eq_ignore_ascii_case(word)
}

/// `3`, also as `3.0`, which tools write that know no whole numbers with gaps.
fn whole(label: &str) -> Option<usize> {
    label.strip_suffix(".0").unwrap_or(label).parse().ok()
}

fn yes_or_no(label: &str) -> Option<bool> {
    match (whole(label), label.to_ascii_lowercase().as_str()) {
        (Some(0), _) | (_, "no" | "false" | "negative") => Some(false),
        (Some(1), _) | (_, "yes" | "true" | "positive") => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<Row>, String> {
        read(text.as_bytes(), true).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_are_found_by_name_quoting_is_csv_and_others_are_passed_over() {
        let read = rows("\u{feff}Split,File,label,Group\ntest,\"a, b/1.png\", 1 ,p1\ntrain,2.jpg,,\n").unwrap();
        let group = Some("p1".to_owned());
        assert_eq!(read[0], Row { line: 2, file: "a, b/1.png".into(), label: Some("1".into()), group });
        assert_eq!(read[1], Row { line: 3, file: "2.jpg".into(), label: None, group: None });
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, says) in [
            ("name,label\n1.png,0\n", "no column `file`"),
            ("file,class\n1.png,0\n", "no column `label`"),
            ("file,label\n1.png,0\n2.png,1\n1.png,1\n", "line 4: 1.png stands in line 2"),
            ("file,label\n/etc/passwd,0\n", "line 2: the file must be"),
            ("file,label\n../x.png,0\n", "line 2: the file must be"),
            ("file,label\n,0\n", "line 2: the file must be"),
            ("file,label\r\n1.png,0\r\n\r\n\"a\r\nb.png\",1\r\n/x,1\r\n", "line 6: the file must be"),
            ("file,label\n\n1.png,0\n1.png,1\n", "line 4: 1.png stands in line 3"),
            ("file;label\n1.png;0\n", "separated by semicolons"),
            ("\u{feff}file\tlabel\r\n1.png\t0\r\n", "separated by tabs"),
            ("file,label\n", "0 rows"),
            ("file,label\n1.png,0,5\n", "cannot be read"),
        ] {
            let error = rows(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        assert_eq!(read("file\n1.png\n".as_bytes(), false).unwrap()[0].label, None);
    }

    fn given(labels: &[&str], answers: &Answers) -> Result<(Meaning, Vec<Option<Truth>>), String> {
        let read = truths_of(answers, &labelled(labels)).map_err(|error| error.to_string())?;
        Ok((read.meaning, read.of_rows))
    }

    fn labelled(labels: &[&str]) -> Vec<Row> {
        let row = |(line, label): (usize, &&str)| Row {
            line: line as u64 + 2,
            file: line.to_string(),
            label: (!label.is_empty()).then(|| (*label).to_owned()),
            group: None,
        };
        labels.iter().enumerate().map(row).collect()
    }

    #[test]
    fn only_labels_of_which_none_means_anything_are_put_aside() {
        let class = |value: &str| (value.to_owned(), value.to_owned(), false);
        let classes = || Answers::Classes(vec![class("benign"), class("adeno")]);
        let levels = || Answers::Levels(["none", "mild", "severe"].map(str::to_owned).to_vec());
        for (answers, labels, nothing) in [
            (classes(), &["23", "1", "", "118"][..], true),
            (classes(), &["1", "0", "7"], true),
            (classes(), &["sarcoma", "lymphoma"], true),
            (classes(), &["23", "adeno"], false),
            (classes(), &["yes", "no", "perhaps"], false),
            (levels(), &["TR2", "TR5"], true),
            (levels(), &["7", "2"], false),
            (levels(), &["TR2", "mild"], false),
            (Answers::Binary, &["TI-RADS 4", "TI-RADS 2"], true),
            (Answers::Binary, &["TI-RADS 4", "1"], false),
        ] {
            assert_eq!(says_nothing_to(&answers, &labelled(labels)), nothing, "{labels:?}");
        }
    }

    #[test]
    fn any_label_above_one_makes_levels_of_all_and_the_bundle_says_which_are_positive() {
        let grades = Answers::Levels(["none", "mild", "moderate", "severe"].map(str::to_owned).to_vec());
        let (meaning, truths) = given(&["0", "1", "", "3.0"], &grades).unwrap();
        assert_eq!(truths, [Some(Truth::Level(0)), Some(Truth::Level(1)), None, Some(Truth::Level(3))]);
        assert!(!meaning.is_positive(Truth::Level(1)) && meaning.is_positive(Truth::Level(2)));
        let (meaning, truths) = given(&["0", "1", "yes"], &grades).unwrap();
        assert_eq!((meaning, truths[2]), (Meaning::Binary, Some(Truth::Binary(true))));
        assert!(given(&["0", "mild"], &grades).unwrap().1.contains(&Some(Truth::Level(1))));
        let error = given(&["0", "2", "4"], &grades).unwrap_err();
        assert!(error.contains("line 4") && error.contains("0 to 3"), "{error}");
        let error = given(&["0", "2"], &Answers::Binary).unwrap_err();
        assert!(error.contains("line 3") && error.contains("0 or 1"), "{error}");
    }

    #[test]
    fn labels_of_a_bundle_with_classes_are_classes_or_all_zero_and_one() {
        let class = |value: &str, label: &str, positive| (value.to_owned(), label.to_owned(), positive);
        let classes = [class("benign", "benign lung tissue", false), class("adeno", "adenocarcinoma", true)];
        let classes = Answers::Classes(classes.to_vec());
        let (meaning, truths) = given(&["Benign", "adenocarcinoma", ""], &classes).unwrap();
        assert_eq!(truths, [Some(Truth::Class(0)), Some(Truth::Class(1)), None]);
        assert!(meaning.is_positive(Truth::Class(1)) && !meaning.is_positive(Truth::Class(0)));
        assert_eq!(given(&["1", "0"], &classes).unwrap().0, Meaning::Binary);
        let error = given(&["benign", "sarcoma"], &classes).unwrap_err();
        assert!(error.contains("line 3") && error.contains("benign, adeno"), "{error}");
    }

    #[test]
    fn zero_and_one_have_several_spellings() {
        for (label, is) in [("0", false), ("1.0", true), ("No", false), ("TRUE", true), ("positive", true)] {
            assert_eq!(yes_or_no(label), Some(is), "{label}");
        }
        assert_eq!((yes_or_no("2"), yes_or_no("maybe"), yes_or_no("")), (None, None, None));
    }

    #[test]
    fn the_worse_of_two_labels_is_the_positive_or_the_higher() {
        let levels =
            Meaning::Levels { words: ["none", "mild", "severe"].map(str::to_owned).to_vec(), positive_from: 2 };
        assert_eq!(levels.worse(Truth::Level(2), Truth::Level(1)), Truth::Level(2));
        assert!(levels.is_positive(Truth::Level(2)) && !levels.is_positive(Truth::Level(1)));
        let values = ["benign", "tumour", "other"].map(str::to_owned).to_vec();
        let classes = Meaning::Classes { values, positive: vec![false, true, false] };
        assert_eq!(classes.worse(Truth::Class(0), Truth::Class(1)), Truth::Class(1));
        assert_eq!(classes.worse(Truth::Class(2), Truth::Class(0)), Truth::Class(2));
        assert_eq!(Meaning::Binary.worse(Truth::Binary(false), Truth::Binary(true)), Truth::Binary(true));
    }
}
