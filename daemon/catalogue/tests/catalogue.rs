//! What the catalogue answers, and that it is only a view.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod common;
use common::*;
use fovea_catalogue::Catalogue;
use fovea_core::*;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

fn open(folder: &Path, held: &Arc<Held>) -> Catalogue {
    Catalogue::new(folder, held.clone(), Arc::new(Out(held.clone())))
}

fn ask(level: QueryLevel, keys: &[(TagNumber, &str)]) -> Query {
    let keys = keys.iter().map(|(tag, text)| (*tag, (*text).to_owned())).collect();
    Query { level, keys, offset: 0, limit: 100 }
}

/// The values of one attribute in the rows of an answer.
fn values(catalogue: &Catalogue, level: QueryLevel, keys: &[(TagNumber, &str)], tag: TagNumber) -> Vec<String> {
    catalogue.find(&ask(level, keys)).unwrap().into_iter().map(|mut row| row.remove(&tag).unwrap()).collect()
}

const SOP: TagNumber = 0x0008_0018;
const STUDY: TagNumber = 0x0020_000D;
const SERIES: TagNumber = 0x0020_000E;
const NAME: TagNumber = 0x0010_0010;
const ID: TagNumber = 0x0010_0020;
const DATE: TagNumber = 0x0008_0020;
const TIME: TagNumber = 0x0008_0030;

/// Two patients; the second has two studies, of which the later came first.
fn three_studies() -> Arc<Held> {
    let held = Held::new();
    let jane = Picture::default();
    held.take(&jane);
    held.take(&Picture { sop: "1.1.1.2", ..jane.clone() });
    held.take(&Picture { sop: "1.1.2.1", series: "1.1.2", modality: "US", ..jane.clone() });
    let yamada = Picture {
        sop: "2.2.1.1",
        series: "2.2.1",
        study: "2.2",
        patient: "P2",
        name: b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        set: "\\ISO 2022 IR 87",
        date: "20260301",
        accession: "B2",
        ..jane
    };
    held.take(&yamada);
    held.take(&Picture { sop: "2.1.1.1", series: "2.1.1", study: "2.1", date: "20251231", accession: "B1", ..yamada });
    held
}

#[test]
fn each_level_answers_with_its_rows_and_those_above_the_newest_study_first() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    let catalogue = open(dir.path(), &held);
    assert_eq!(values(&catalogue, QueryLevel::Patient, &[], ID), ["P2", "P1"]);
    assert_eq!(values(&catalogue, QueryLevel::Study, &[], STUDY), ["2.2", "1.1", "2.1"]);
    assert_eq!(values(&catalogue, QueryLevel::Series, &[], SERIES), ["2.2.1", "1.1.1", "1.1.2", "2.1.1"]);
    let instances = ["2.2.1.1", "1.1.1.1", "1.1.1.2", "1.1.2.1", "2.1.1.1"];
    assert_eq!(values(&catalogue, QueryLevel::Instance, &[], SOP), instances);
    let page = Query { offset: 1, limit: 2, ..ask(QueryLevel::Instance, &[]) };
    let page: Vec<String> = catalogue.find(&page).unwrap().into_iter().map(|row| row[&SOP].clone()).collect();
    assert_eq!(page, instances[1..3]);

    let row = catalogue.find(&ask(QueryLevel::Instance, &[(SOP, "1.1.2.1")])).unwrap().remove(0);
    let expected = [
        (NAME, "DOE^JANE"),
        (0x0008_0008, "ORIGINAL\\PRIMARY"),
        (0x0008_0016, CLASS),
        (0x0008_0056, "ONLINE"),
        (0x0008_0060, "US"),
        (0x0008_1030, "Eye check"),
        (0x0008_3002, SYNTAX),
        (0x0020_0011, "07"),
        (0x0028_0010, "512"),
        (0x0040_0009, "STEP7"),
        (0x0040_1001, "PROC7"),
        (0x0008_0090, ""),
    ];
    for (tag, text) in expected {
        assert_eq!(row[&tag], text, "{tag:08x}");
    }
}

#[test]
fn numbers_of_related_things_and_modalities_are_those_of_what_is_held() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    let catalogue = open(dir.path(), &held);
    let study = catalogue.find(&ask(QueryLevel::Study, &[(STUDY, "1.1")])).unwrap().remove(0);
    let related = [0x0020_1206, 0x0020_1208, 0x0008_0061, 0x0008_0062].map(|tag| study[&tag].as_str());
    assert_eq!(related, ["2", "3", "OP\\US", CLASS]);
    let series = catalogue.find(&ask(QueryLevel::Series, &[(SERIES, "1.1.1")])).unwrap().remove(0);
    assert_eq!(series[&0x0020_1209], "2");
    let patient = catalogue.find(&ask(QueryLevel::Patient, &[(ID, "P2")])).unwrap().remove(0);
    assert_eq!([0x0020_1200, 0x0020_1202, 0x0020_1204].map(|tag| patient[&tag].as_str()), ["2", "2", "2"]);
    assert_eq!(patient[&NAME], "Yamada^Tarou=山田^太郎");
}

#[test]
fn keys_match_as_the_standard_reads_them_for_each_kind_of_attribute() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    let catalogue = open(dir.path(), &held);
    let all = ["2.2", "1.1", "2.1"];
    for (keys, expected) in [
        (&[(NAME, "doe^jane")][..], &["1.1"][..]),
        (&[(NAME, "DOE")], &[]),
        (&[(NAME, "Do*")], &["1.1"]),
        (&[(NAME, "*jane")], &["1.1"]),
        (&[(NAME, "山田*")], &["2.2", "2.1"]),
        (&[(NAME, "*=山田^太郎")], &["2.2", "2.1"]),
        (&[(NAME, "YAMADA^TAROU^^")], &["2.2", "2.1"]),
        (&[(NAME, "*")], &all),
        (&[(NAME, "")], &all),
        (&[(ID, "P1")], &["1.1"]),
        (&[(ID, "p1")], &[]),
        (&[(ID, "P?"), (0x0008_0050, "B*")], &["2.2", "2.1"]),
        (&[(DATE, "20260102")], &["1.1"]),
        (&[(DATE, "20260101-20260131")], &["1.1"]),
        (&[(DATE, "20260102-")], &["2.2", "1.1"]),
        (&[(DATE, "-20260102")], &["1.1", "2.1"]),
        (&[(DATE, "-")], &[]),
        (&[(DATE, "2026' OR 1=1")], &[]),
        (&[(TIME, "1011")], &all),
        (&[(TIME, "101113-")], &[]),
        (&[(TIME, "10:11-10:12")], &all),
        (&[(STUDY, "1.1\\2.1\\9.9")], &["1.1", "2.1"]),
        (&[(0x0008_0061, "US")], &["1.1"]),
        (&[(0x0008_0061, "CT")], &[]),
        (&[(0x0008_0062, CLASS)], &all),
        (&[(0x0010_4000, "not indexed")], &all),
        (&[(0x0008_0060, "of a lower level")], &all),
    ] {
        assert_eq!(values(&catalogue, QueryLevel::Study, keys, STUDY), expected, "{keys:x?}");
    }
    for (keys, expected) in [
        (&[(0x0020_0011, "7")][..], 4),
        (&[(0x0020_0011, "x")], 0),
        (&[(0x0008_1070, "NURSE^B")], 4),
        (&[(0x0008_1070, "*^c")], 0),
        (&[(0x0008_0060, "US"), (ID, "P1")], 1),
        (&[(0x0040_0009, "STEP7")], 4),
    ] {
        assert_eq!(catalogue.find(&ask(QueryLevel::Series, keys)).unwrap().len(), expected, "{keys:x?}");
    }
    let primary = ask(QueryLevel::Instance, &[(0x0008_0008, "PRIMARY"), (0x0028_0010, "512")]);
    assert_eq!(catalogue.find(&primary).unwrap().len(), 5);
}

#[test]
fn what_was_accepted_before_the_question_is_in_the_answer_and_its_file_can_be_opened() {
    let (dir, held) = (tempfile::tempdir().unwrap(), Held::new());
    let catalogue = open(dir.path(), &held);
    assert!(catalogue.find(&ask(QueryLevel::Study, &[])).unwrap().is_empty());
    let picture = Picture::default();
    held.take(&picture);
    let report = Picture { sop: "7.1", series: "7", modality: "SR", ..picture.clone() };
    held.report(&picture, &report);
    assert_eq!(values(&catalogue, QueryLevel::Instance, &[], SOP), ["1.1.1.1", "7.1"]);
    let selection = Selection { study_uids: vec![uid("1.1")], ..Selection::default() };
    let selected = catalogue.select(&selection, 10).unwrap();
    assert_eq!(
        selected.iter().map(|instance| instance.sop_instance_uid.as_str()).collect::<Vec<_>>(),
        ["7.1", "1.1.1.1"]
    );
    assert_eq!(selected[0].sop_class_uid, uid(sop_class::COMPREHENSIVE_SR));
    for (instance, expected) in selected.iter().zip([report.file(), picture.file()]) {
        let mut bytes = Vec::new();
        catalogue.open(&instance.sop_instance_uid).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes.len() as u64, bytes), (instance.file_bytes, expected));
    }
    assert!(matches!(catalogue.open(&uid("9.9")), Err(PortError::NotHeld { .. })));
}

#[test]
fn a_selection_is_by_patient_study_series_and_instance_together() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    let catalogue = open(dir.path(), &held);
    let count = |selection: &Selection, limit| catalogue.select(selection, limit).unwrap().len();
    let mut selection = Selection { patient_id: Some("P1".to_owned()), ..Selection::default() };
    assert_eq!((count(&selection, 10), count(&selection, 2)), (3, 2));
    selection.series_uids = vec![uid("1.1.1"), uid("2.1.1")];
    assert_eq!(count(&selection, 10), 2);
    selection.sop_instance_uids = vec![uid("1.1.1.2")];
    assert_eq!(count(&selection, 10), 1);
    selection.study_uids = vec![uid("2.1")];
    assert_eq!(count(&selection, 10), 0);
    assert_eq!(count(&Selection::default(), 10), 5);
}

#[test]
fn what_is_evicted_or_lost_is_in_no_answer_and_takes_its_series_study_and_patient_along() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    let catalogue = open(dir.path(), &held);
    assert_eq!(values(&catalogue, QueryLevel::Patient, &[], ID), ["P2", "P1"]);
    held.evict(1, Some("1.1.1.1"));
    held.evict(2, Some("1.1.1.2"));
    assert_eq!(values(&catalogue, QueryLevel::Series, &[(ID, "P1")], SERIES), ["1.1.2"]);
    held.evict(3, Some("1.1.2.1"));
    assert_eq!(values(&catalogue, QueryLevel::Patient, &[], ID), ["P2"]);
    held.lose("2.2.1.1");
    for _ in 0..3 {
        catalogue.look_after().unwrap();
    }
    assert_eq!(values(&catalogue, QueryLevel::Study, &[], STUDY), ["2.1"]);
    // Made anew, it says the same.
    drop(catalogue);
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(values(&open(dir.path(), &held), QueryLevel::Instance, &[], SOP), ["2.1.1.1"]);
}

#[test]
fn a_parcel_that_is_an_objects_copy_goes_without_the_object() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    let catalogue = open(dir.path(), &held);
    held.report(&Picture::default(), &Picture { sop: "7.1", series: "7", modality: "SR", ..Picture::default() });
    assert_eq!(values(&catalogue, QueryLevel::Instance, &[(SERIES, "7")], SOP), ["7.1"]);
    held.evict(1, None);
    assert!(values(&catalogue, QueryLevel::Instance, &[(SERIES, "7")], SOP).is_empty());
    assert_eq!(catalogue.find(&ask(QueryLevel::Instance, &[])).unwrap().len(), 5);
}

#[test]
fn a_damaged_foreign_or_missing_file_is_made_anew_without_anyone_noticing() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    let file = dir.path().join("catalogue.db");
    let whole = ["2.2", "1.1", "2.1"];
    assert_eq!(values(&open(dir.path(), &held), QueryLevel::Study, &[], STUDY), whole);
    let sound = std::fs::read(&file).unwrap();
    for seed in 0..40usize {
        let mut bytes = sound.clone();
        match seed {
            0 => bytes.clear(),
            1 => bytes = b"not a database at all".to_vec(),
            2 => bytes.truncate(sound.len() / 2),
            _ => {
                let from = (seed * 7919 * 64) % bytes.len();
                let to = (from + 700).min(bytes.len());
                bytes[from..to].fill(seed as u8);
            }
        }
        for end in ["-wal", "-shm"] {
            let _none = std::fs::remove_file(dir.path().join(format!("catalogue.db{end}")));
        }
        std::fs::write(&file, bytes).unwrap();
        let catalogue = open(dir.path(), &held);
        let found = catalogue.find(&ask(QueryLevel::Study, &[])).unwrap();
        let found: Vec<&str> = found.iter().map(|row| row[&STUDY].as_str()).collect();
        assert_eq!(found, whole, "seed {seed}");
        assert_eq!(catalogue.select(&Selection::default(), 10).unwrap().len(), 5, "seed {seed}");
    }
}

#[test]
fn damage_while_it_is_open_is_mended_too() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    let catalogue = open(dir.path(), &held);
    assert_eq!(catalogue.find(&ask(QueryLevel::Study, &[])).unwrap().len(), 3);
    std::fs::remove_dir_all(dir.path()).unwrap();
    std::fs::create_dir(dir.path()).unwrap();
    held.take(&Picture { sop: "5.1.1", series: "5.1", study: "5", ..Picture::default() });
    let found = catalogue.find(&ask(QueryLevel::Study, &[])).unwrap();
    assert_eq!(found.len(), 4);
}

#[test]
fn a_catalogue_of_another_state_is_not_believed() {
    let (dir, held) = (tempfile::tempdir().unwrap(), three_studies());
    assert_eq!(values(&open(dir.path(), &held), QueryLevel::Study, &[], STUDY).len(), 3);
    let other = Held::new();
    other.take(&Picture { sop: "8.1.1", series: "8.1", study: "8", ..Picture::default() });
    let catalogue = open(dir.path(), &other);
    let found = catalogue.find(&ask(QueryLevel::Study, &[])).unwrap();
    assert_eq!(found.iter().map(|row| row[&STUDY].as_str()).collect::<Vec<_>>(), ["8"]);
}

#[test]
fn an_object_whose_header_is_not_understood_is_held_by_what_routes_it() {
    let (dir, held) = (tempfile::tempdir().unwrap(), Held::new());
    let picture = Picture::default();
    let mut cut = picture.file();
    cut.truncate(400);
    held.take_bytes(&picture, &cut);
    let catalogue = open(dir.path(), &held);
    let row = catalogue.find(&ask(QueryLevel::Instance, &[])).unwrap().remove(0);
    assert_eq!(
        [SOP, STUDY, SERIES, NAME, 0x0008_0060].map(|tag| row[&tag].as_str()),
        ["1.1.1.1", "1.1", "1.1.1", "", "OP"]
    );
}

#[test]
fn patients_without_an_id_are_not_one_patient() {
    let (dir, held) = (tempfile::tempdir().unwrap(), Held::new());
    held.take(&Picture { patient: "", ..Picture::default() });
    held.take(&Picture {
        patient: "",
        sop: "2",
        series: "2.1",
        study: "2.2",
        name: b"ROE^RICHARD",
        ..Picture::default()
    });
    let catalogue = open(dir.path(), &held);
    let mut names = values(&catalogue, QueryLevel::Patient, &[], NAME);
    names.sort();
    assert_eq!(names, ["DOE^JANE", "ROE^RICHARD"]);
}
