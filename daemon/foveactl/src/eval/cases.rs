//! From rows of a table to cases: files that are there, each picture once, with the masks that belong to it.
//!
//! In: rows, folders. Out: [`Case`]s and warnings. Promise: two files of the same bytes are one case, whose masks are united; a file that
//! is not there is an error that names its line, unless the caller says that it may be missing.

use super::labels::{LabelsError, Meaning, Row, Truth};
use fovea_core::Sha256;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longest file that is taken.
const FILE_BYTES_MAX: u64 = 4 << 30;
/// Longest file that is compared with others: two slides of the same bytes would be a strange table.
const COMPARED_BYTES_MAX: u64 = 256 << 20;

/// Why there are no cases.
#[derive(Debug, thiserror::Error)]
pub enum CasesError {
    /// A file of the table.
    #[error("line {line}: {path} is not there; pass --skip-missing to go without such files")]
    Missing {
        /// Where.
        line: u64,
        /// Which.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("line {line}: read {path}")]
    Read {
        /// Where.
        line: u64,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Too long.
    #[error("line {line}: {path} has {bytes} bytes, the limit is {FILE_BYTES_MAX}")]
    TooLong {
        /// Where.
        line: u64,
        /// Which.
        path: PathBuf,
        /// How long.
        bytes: u64,
    },
    /// One mask file for two pictures.
    #[error("line {line}: the mask {mask} would be that of {file} and of {other}, which are different pictures")]
    SharedMask {
        /// Where.
        line: u64,
        /// Which.
        mask: PathBuf,
        /// The picture of the line.
        file: String,
        /// The one before.
        other: String,
    },
    /// Nowhere to look for masks.
    #[error("--masks: {path} is no folder")]
    NoFolder {
        /// Which.
        path: PathBuf,
    },
    /// Masks were asked for and none belongs to a picture.
    #[error(
        "--masks: not one of the {cases} cases has a mask in {path} that this bundle can be measured with; looked for {wanted}"
    )]
    NoMask {
        /// How many.
        cases: usize,
        /// Where.
        path: PathBuf,
        /// Names of files.
        wanted: String,
    },
    /// No file of the table is there.
    #[error("none of the files in the table is in --images")]
    None,
    /// The table itself.
    #[error(transparent)]
    Labels(#[from] LabelsError),
}

/// One picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// As the table names it first.
    pub file: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What it is; none where nobody said.
    pub truth: Option<Truth>,
    /// Cases of one group are drawn together.
    pub group: Option<String>,
    /// Binary masks: what any of them covers is covered.
    pub masks: Vec<PathBuf>,
    /// Instance maps.
    pub instances: Vec<PathBuf>,
}

/// Where things are.
pub struct Folders<'a> {
    /// Of the pictures.
    pub images: &'a Path,
    /// Of the masks.
    pub masks: Option<&'a Path>,
    /// Files may be missing.
    pub skip_missing: bool,
}

/// Cases in the order of the table, and what a person should know of them.
///
/// # Errors
/// [`CasesError`].
pub fn gather(
    rows: &[Row],
    truths: &[Option<Truth>],
    meaning: &Meaning,
    folders: &Folders,
) -> Result<(Vec<Case>, Vec<String>), CasesError> {
    let (mut cases, mut warnings): (Vec<Case>, Vec<String>) = (Vec::new(), Vec::new());
    let mut known: HashMap<Sha256, usize> = HashMap::new();
    let mut owners: HashMap<PathBuf, usize> = HashMap::new();
    let mut missing = 0;
    if let Some(path) = folders.masks.filter(|path| !path.is_dir()) {
        return Err(CasesError::NoFolder { path: path.to_owned() });
    }
    for (row, truth) in rows.iter().zip(truths) {
        let path = folders.images.join(&row.file);
        let Some(sha256) = digest(row.line, &path, folders.skip_missing)? else {
            missing += 1;
            continue;
        };
        let masks = beside(folders.masks, &row.file, "_mask.png");
        let instances = beside(folders.masks, &row.file, "_label.png");
        let number = match sha256.and_then(|sha256| known.get(&sha256).copied()) {
            Some(number) => number,
            None => {
                if let Some(sha256) = sha256 {
                    known.insert(sha256, cases.len());
                }
                cases.push(Case {
                    file: row.file.clone(),
                    path,
                    truth: *truth,
                    group: row.group.clone(),
                    masks: Vec::new(),
                    instances: Vec::new(),
                });
                cases.len() - 1
            }
        };
        for mask in masks.iter().chain(&instances) {
            let owner = *owners.entry(mask.clone()).or_insert(number);
            if owner != number {
                let (mask, file, other) = (mask.clone(), row.file.clone(), cases[owner].file.clone());
                return Err(CasesError::SharedMask { line: row.line, mask, file, other });
            }
        }
        let case = &mut cases[number];
        case.masks.extend(masks);
        case.instances.extend(instances);
        match (case.truth, *truth) {
            (Some(first), Some(truth)) if first != truth => {
                case.truth = Some(meaning.worse(first, truth));
                warnings.push(format!(
                    "line {}: {} is the same picture as {} and has another label; the worse one counts",
                    row.line, row.file, case.file
                ));
            }
            (first, truth) => case.truth = first.or(truth),
        }
    }
    let twice = rows.len() - missing - cases.len();
    if twice > 0 {
        warnings.push(format!(
            "{twice} files are the same picture as another one: their masks are united, each picture counts once"
        ));
    }
    if missing > 0 {
        warnings.push(format!("{missing} files of the table are not in --images and are left out"));
    }
    if cases.is_empty() { Err(CasesError::None) } else { Ok((cases, warnings)) }
}

/// Warns of cases without a mask that a bundle can be measured with which `outlines` or `counts` something.
///
/// # Errors
/// [`CasesError::NoMask`] where the bundle does either and no case has what it takes.
pub fn with_masks(cases: &[Case], path: &Path, outlines: bool, counts: bool) -> Result<Option<String>, CasesError> {
    let has = |case: &&Case| (outlines && !case.masks.is_empty()) || (counts && !case.instances.is_empty());
    let wanted = match (outlines, counts) {
        (false, false) => {
            return Ok(Some("the bundle outlines nothing and counts nothing: masks are not looked at".to_owned()));
        }
        (true, false) => "<stem>_mask.png",
        (false, true) => "<stem>_label.png",
        (true, true) => "<stem>_mask.png and <stem>_label.png",
    };
    match cases.len() - cases.iter().filter(has).count() {
        0 => Ok(None),
        without if without == cases.len() => {
            Err(CasesError::NoMask { cases: without, path: path.to_owned(), wanted: wanted.to_owned() })
        }
        without => Ok(Some(format!("{without} of {} cases have no mask", cases.len()))),
    }
}

/// None where it is missing and may be; none inside where it is too long to be compared.
fn digest(line: u64, path: &Path, skip_missing: bool) -> Result<Option<Option<Sha256>>, CasesError> {
    let read = |source| CasesError::Read { line, path: path.to_owned(), source };
    let bytes = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(read(io::Error::other("it is no plain file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && skip_missing => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(CasesError::Missing { line, path: path.to_owned() });
        }
        Err(source) => return Err(read(source)),
    };
    if bytes > FILE_BYTES_MAX {
        return Err(CasesError::TooLong { line, path: path.to_owned(), bytes });
    }
    let is_compared = bytes <= COMPARED_BYTES_MAX;
    let whole = is_compared.then(|| fs::read(path).map_err(read)).transpose()?;
    Ok(Some(whole.map(|bytes| Sha256::of(&bytes))))
}

/// `<masks>/<sub-path>/<stem><end>`, else `<masks>/<stem><end>`.
fn beside(masks: Option<&Path>, file: &str, end: &str) -> Option<PathBuf> {
    let (masks, file) = (masks?, Path::new(file));
    let name = format!("{}{end}", stem(file.file_name()?.to_str()?));
    let nested = file.parent().map(|folder| masks.join(folder).join(&name));
    nested.into_iter().chain([masks.join(&name)]).find(|path| path.is_file())
}

/// The name without the ending of a picture; any other dot belongs to the name, as in an object's that is its UID.
fn stem(name: &str) -> &str {
    const ENDINGS: [&str; 7] = ["jpg", "jpeg", "png", "dcm", "dicom", "tif", "tiff"];
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)) => {
            stem
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: u64, file: &str) -> Row {
        Row { line, file: file.to_owned(), label: None, group: None }
    }

    #[test]
    fn the_same_picture_twice_is_one_case_with_both_masks_and_the_worse_label() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("sub")).unwrap();
        for (name, bytes) in [
            ("sub/1_n1.png", "one"),
            ("sub/1_n2.png", "one"),
            ("2.png", "two"),
            ("sub/1_n1_mask.png", ""),
            ("1_n2_mask.png", ""),
            ("2_label.png", ""),
        ] {
            fs::write(root.join(name), bytes).unwrap();
        }
        let rows = [row(2, "sub/1_n1.png"), row(3, "sub/1_n2.png"), row(4, "2.png")];
        let truths = [Some(Truth::Binary(false)), Some(Truth::Binary(true)), None];
        let folders = Folders { images: root, masks: Some(root), skip_missing: false };
        let (cases, warnings) = gather(&rows, &truths, &Meaning::Binary, &folders).unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].masks, [root.join("sub/1_n1_mask.png"), root.join("1_n2_mask.png")]);
        assert_eq!((cases[0].truth, cases[1].truth), (Some(Truth::Binary(true)), None));
        assert_eq!(cases[1].instances, [root.join("2_label.png")]);
        assert!(warnings[0].starts_with("line 3: sub/1_n2.png is the same picture"), "{warnings:?}");
        assert!(warnings[1].starts_with("1 files are the same"), "{warnings:?}");
    }

    #[test]
    fn only_the_endings_of_pictures_are_cut_off() {
        for (name, is) in
            [("a.b.JPG", "a.b"), ("x.tiff", "x"), ("1.2.840.1", "1.2.840.1"), ("1.2.dcm", "1.2"), (".png", ".png")]
        {
            assert_eq!(stem(name), is);
        }
    }

    #[test]
    fn a_mask_belongs_to_one_picture_and_some_mask_to_some_picture() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, bytes) in [("1.png", "one"), ("1.jpg", "two"), ("2.png", "three"), ("1_mask.png", "")] {
            fs::write(root.join(name), bytes).unwrap();
        }
        let gather = |files: &[&str], masks: &Path| {
            let rows: Vec<Row> = (2..).zip(files).map(|(line, file)| row(line, file)).collect();
            let folders = Folders { images: root, masks: Some(masks), skip_missing: false };
            gather(&rows, &vec![None; rows.len()], &Meaning::Binary, &folders)
        };
        let shared = gather(&["1.png", "1.jpg"], root).unwrap_err().to_string();
        assert!(shared.starts_with("line 3: ") && shared.contains("1.jpg and of 1.png"), "{shared}");
        assert!(gather(&["1.png"], &root.join("none")).unwrap_err().to_string().contains("is no folder"));
        let (cases, _) = gather(&["1.png", "2.png"], root).unwrap();
        let warning = with_masks(&cases, root, true, false).unwrap();
        assert_eq!(warning.as_deref(), Some("1 of 2 cases have no mask"));
        assert_eq!(with_masks(&cases[..1], root, true, true).unwrap(), None);
        assert!(with_masks(&cases, root, false, true).unwrap_err().to_string().contains("looked for <stem>_label.png"));
        assert!(with_masks(&cases, root, false, false).unwrap().is_some());
    }

    #[test]
    fn a_missing_file_is_named_with_its_line_or_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("there.png"), "x").unwrap();
        let rows = [row(2, "there.png"), row(3, "gone.png")];
        let gather = |skip_missing| {
            let folders = Folders { images: folder.path(), masks: None, skip_missing };
            gather(&rows, &[None, None], &Meaning::Binary, &folders)
        };
        assert!(gather(false).unwrap_err().to_string().starts_with("line 3: "));
        let (cases, warnings) = gather(true).unwrap();
        assert_eq!((cases.len(), warnings.len()), (1, 1));
    }
}
