//! What happens to bundles that are not what they should be: each is refused, with the reason, before it runs.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod support;

use fovea_infer::{BUNDLE_BYTES_MAX, Bundle, BundleError, BundleFiles, GraphError, OpenBundleError, TrustedKey};
use proptest::prelude::*;
use support::{TestBundle, many, trusted, write_files};

fn open(bundle: &TestBundle) -> Result<Bundle, BundleError> {
    let folder = tempfile::tempdir().unwrap();
    Bundle::open(&bundle.write(folder.path()), &trusted())
}

fn graph_error(bundle: &TestBundle) -> GraphError {
    match open(bundle) {
        Err(BundleError::Graph { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_and_a_tar_give_the_same_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let a = Bundle::open(&TestBundle::new().write(&folder.path().join("a")), &trusted()).unwrap();
    let b = Bundle::open(&TestBundle::new().write_tar(&folder.path().join("b.fovea")), &trusted()).unwrap();
    assert_eq!(a.model_ref(), b.model_ref());
    assert_eq!(a.graphs[0].bin, b.graphs[0].bin);
    assert_eq!(a.model_ref().id, "brightness");
}

#[test]
fn inv_03_one_flipped_bit_in_any_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = TestBundle::new().signed();
    for name in whole.keys() {
        for at in [0, whole[name].len() / 2, whole[name].len() - 1] {
            let mut spoiled = whole.clone();
            spoiled.get_mut(name).unwrap()[at] ^= 0x10;
            write_files(&spoiled, folder.path());
            match Bundle::open(folder.path(), &trusted()) {
                Err(BundleError::Hash { name: named }) => assert_eq!(&named, name),
                Err(BundleError::Untrusted { .. }) => assert!(name == "bundle.toml" || name == "bundle.sig", "{name}"),
                other => panic!("{name} at {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn inv_03_only_a_trusted_key_opens_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = TestBundle::new().write(folder.path());
    let other = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    let other = TrustedKey::from_bytes(other.verifying_key().as_bytes()).unwrap();
    assert!(matches!(Bundle::open(&path, &[]), Err(BundleError::Untrusted { keys: 0 })));
    assert!(matches!(Bundle::open(&path, std::slice::from_ref(&other)), Err(BundleError::Untrusted { keys: 1 })));
    assert!(Bundle::open(&path, &[vec![other], trusted()].concat()).is_ok());
    std::fs::write(path.join("bundle.sig"), [0; 63]).unwrap();
    assert!(matches!(Bundle::open(&path, &trusted()), Err(BundleError::Untrusted { .. })));
}

#[test]
fn a_file_that_is_missing_or_that_nobody_vouches_for_is_named() {
    for name in
        ["bundle.toml", "bundle.sig", "model.xml", "model.bin", "golden/inputs.bin", "golden/expected.bin", "card.md"]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = TestBundle::new().write(folder.path());
        std::fs::remove_file(path.join(name)).unwrap();
        assert!(matches!(Bundle::open(&path, &trusted()), Err(BundleError::Missing { name: n }) if n == name));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = TestBundle::new().write(folder.path());
    std::fs::write(path.join("golden/extra.so"), b"x").unwrap();
    assert!(
        matches!(Bundle::open(&path, &trusted()), Err(BundleError::Unlisted { name }) if name == "golden/extra.so")
    );
}

#[test]
fn inv_08_a_file_past_its_bound_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("bundle.toml", 1 << 40),
        ("bundle.toml", 65 << 10),
        ("model.bin", 1 << 40),
        ("model.xml", 9 << 20),
        ("card.md", 9 << 20),
    ] {
        let path = TestBundle::new().write(&folder.path().join(name));
        // Sparse: it says that it is large, and a reader that believed it would run out of memory.
        std::fs::OpenOptions::new().write(true).open(path.join(name)).unwrap().set_len(bytes).unwrap();
        match Bundle::open(&path, &trusted()) {
            Err(BundleError::TooLarge { name: named, bytes: found, .. }) => assert_eq!((&*named, found), (name, bytes)),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn inv_08_all_files_together_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut many = TestBundle::new();
    let fits = TestBundle::new().with_file("a.md", vec![b'x'; 4 << 20]);
    assert!(open(&fits).is_ok());
    for name in ["a.md", "b.md", "c.md"] {
        many = many.with_file(name, vec![b'x'; 3 << 20]);
    }
    for bundle in [many.write(&folder.path().join("folder")), many.write_tar(&folder.path().join("tar"))] {
        let refused = Bundle::open(&bundle, &trusted());
        assert!(
            matches!(&refused, Err(BundleError::TooLarge { bytes_max, .. }) if *bytes_max <= BUNDLE_BYTES_MAX + (1 << 20)),
            "{refused:?}"
        );
    }
}

#[test]
fn links_hidden_files_and_too_many_files_are_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let linked = TestBundle::new().write(&folder.path().join("linked"));
    std::fs::remove_file(linked.join("card.md")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", linked.join("card.md")).unwrap();
    assert!(matches!(BundleFiles::open(&linked), Err(OpenBundleError::NotPlain { path }) if path.ends_with("card.md")));
    let hidden = TestBundle::new().write(&folder.path().join("hidden"));
    std::fs::write(hidden.join(".hidden"), b"x").unwrap();
    assert!(matches!(BundleFiles::open(&hidden), Err(OpenBundleError::NotPlain { .. })));
    let mut many = TestBundle::new();
    for index in 0..40 {
        many = many.with_file(&format!("f{index}"), b"x");
    }
    assert!(matches!(
        BundleFiles::open(&many.write(&folder.path().join("many"))),
        Err(OpenBundleError::TooMany { .. })
    ));
    let deep = TestBundle::new().with_file("a/b/c/d", b"x").write(&folder.path().join("deep"));
    assert!(matches!(BundleFiles::open(&deep), Err(OpenBundleError::TooMany { .. })));
    assert!(matches!(BundleFiles::open(&folder.path().join("none")), Err(OpenBundleError::Open { .. })));
}

/// A tar with one odd entry beside the signed files.
fn tar_with(path: &std::path::Path, odd: impl FnOnce(&mut tar::Header)) {
    TestBundle::new().write_tar(path);
    let whole = std::fs::read(path).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Regular);
    odd(&mut header);
    header.set_cksum();
    std::fs::write(path, [&header.as_bytes()[..], &whole].concat()).unwrap();
}

fn raw_name(header: &mut tar::Header, name: &[u8]) {
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
}

#[test]
fn a_tar_entry_that_is_no_plain_file_inside_the_bundle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.fovea");
    for name in [&b"../escape"[..], b"/etc/cron.d/x", b"golden/../../x", b"a b", b".hidden", b"model.xml"] {
        tar_with(&path, |header| raw_name(header, name));
        assert!(matches!(Bundle::open(&path, &trusted()), Err(BundleError::Entry { .. })), "{name:?}");
    }
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::GNULongName,
        tar::EntryType::GNUSparse,
    ] {
        tar_with(&path, |header| {
            raw_name(header, b"odd.md");
            header.set_entry_type(kind);
        });
        assert!(matches!(Bundle::open(&path, &trusted()), Err(BundleError::Entry { .. })), "{kind:?}");
    }
    tar_with(&path, |header| {
        raw_name(header, b"golden");
        header.set_entry_type(tar::EntryType::Directory);
    });
    assert!(Bundle::open(&path, &trusted()).is_ok(), "a folder entry is harmless");
}

#[test]
fn a_tar_with_extended_attributes_is_read_by_its_plain_headers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pax.fovea");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    for (name, bytes) in TestBundle::new().signed() {
        tar.append_pax_extensions([("mtime", &b"1700000000.25"[..])]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.finish().unwrap();
    assert!(Bundle::open(&path, &trusted()).is_ok());
    // One that renames what follows changes nothing: the name of the plain header counts.
    tar_with(&path, |header| {
        raw_name(header, b"odd");
        header.set_entry_type(tar::EntryType::XHeader);
    });
    assert!(Bundle::open(&path, &trusted()).is_ok());
}

#[test]
fn a_tar_cut_at_any_block_is_refused_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = TestBundle::new().write_tar(&folder.path().join("whole.fovea"));
    let whole = std::fs::read(&path).unwrap();
    let content = whole.len() - 1024; // Two empty blocks end a tar; without them it is still whole.
    for cut in (0..content).step_by(256) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(Bundle::open(&path, &trusted()).is_err(), "cut at {cut} of {content}");
    }
    std::fs::write(&path, b"not a tar, but long enough to look like a header".repeat(40)).unwrap();
    assert!(matches!(Bundle::open(&path, &trusted()), Err(BundleError::Tar { .. } | BundleError::Entry { .. })));
}

#[test]
fn garbage_that_is_signed_is_still_no_graph() {
    for garbage in [&b"\x89PNG"[..], b"", b"<net", b"<net/>", b"<html><layers/></html>", b"<net><layers/></net>\xff"] {
        let error = graph_error(&TestBundle::new().with_file("model.xml", garbage));
        assert!(matches!(error, GraphError::Xml { .. } | GraphError::NotANet), "{error}");
    }
    let entity = r#"<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "aaaa">]><net><layers>&a;</layers></net>"#;
    assert!(matches!(graph_error(&TestBundle::new().with_file("model.xml", entity)), GraphError::Xml { .. }));
}

#[test]
fn inv_08_nesting_and_nodes_are_bounded() {
    let nested = "<a>".repeat(200_000) + &"</a>".repeat(200_000);
    let deep = format!("<net><layers>{nested}</layers></net>");
    assert!(matches!(
        graph_error(&TestBundle::new().with_file("model.xml", deep)),
        GraphError::Xml { .. } | GraphError::Inputs { .. }
    ));
    let wide = format!("<net><layers>{}</layers></net>", "<a/>".repeat(500_000));
    assert!(matches!(graph_error(&TestBundle::new().with_file("model.xml", wide)), GraphError::Xml { .. }));
}

#[test]
fn inv_08_ten_thousand_operations_are_refused_before_they_are_compiled() {
    let error = graph_error(&TestBundle::new().with_chain(10_000));
    assert!(matches!(error, GraphError::TooManyOps { ops: 10_008, ops_max: 100 }), "{error}");
}

#[test]
fn a_graph_that_does_not_fit_its_manifest_is_refused() {
    let wrong_shape = TestBundle::new().edit_graph(r#"shape="1,3,16,16""#, r#"shape="1,3,17,16""#);
    assert!(matches!(graph_error(&wrong_shape), GraphError::InputShape { .. }));
    let wrong_type = TestBundle::new().edit_graph(r#"16" element_type="f32""#, r#"16" element_type="f16""#);
    assert!(matches!(graph_error(&wrong_type), GraphError::InputShape { .. }));
    let no_input = TestBundle::new().edit("tensor = \"image\"", "tensor = \"picture\"");
    assert!(matches!(graph_error(&no_input), GraphError::NoTensor { key: "networks.input.tensor" }));
    let no_output = TestBundle::new().edit("tensor = \"logit\"", "tensor = \"answer\"");
    assert!(matches!(graph_error(&no_output), GraphError::NoTensor { key: "networks.outputs.tensor" }));
    let dynamic = TestBundle::new().edit_graph("<dim>1</dim><dim>3</dim>", "<dim>-1</dim><dim>3</dim>");
    assert!(matches!(graph_error(&dynamic), GraphError::TensorTooLarge { .. }));
    let huge = TestBundle::new().edit_graph("<dim>3</dim><dim>16</dim>", "<dim>3000000</dim><dim>16000000</dim>");
    assert!(matches!(graph_error(&huge), GraphError::TensorTooLarge { .. }));
    let two = TestBundle::new().edit_graph(r#"type="Result""#, r#"type="Parameter""#);
    assert!(matches!(graph_error(&two), GraphError::Inputs { found: 2 }));
    let cut = TestBundle::new().with_file("model.bin", vec![0; 31]);
    assert!(matches!(graph_error(&cut), GraphError::ConstOutside { index: 2, bin_bytes: 31 }));
    let overflow = TestBundle::new().edit_graph(r#"offset="28""#, r#"offset="18446744073709551615""#);
    assert!(matches!(graph_error(&overflow), GraphError::ConstOutside { index: 2, .. }));
    let short = TestBundle::new().with_file("golden/inputs.bin", vec![0; 100]);
    assert!(matches!(open(&short), Err(BundleError::GoldenLength { found: 100, .. })));
    let long = TestBundle::new().with_file("golden/expected.bin", vec![0; 10]);
    assert!(matches!(open(&long), Err(BundleError::GoldenLength { found: 10, expected: 8, .. })));
}

#[test]
fn an_output_of_another_shape_than_its_kind_needs_is_refused() {
    let shape_error = |bundle: &TestBundle| match graph_error(bundle) {
        GraphError::OutputShape { tensor, expected, found } => (tensor, expected, found),
        other => panic!("{other}"),
    };
    assert!(open(&many::bundle()).is_ok());
    // A bundle for other classes: the manifest names two where the graph answers three.
    let blue = "  { value = \"blue\", label = \"blue\", code = { scheme = \"99FOVEA\", value = \"blue\", meaning = \"blue\" }, positive = true },\n";
    let (tensor, expected, found) = shape_error(&many::bundle().edit(blue, ""));
    assert_eq!((&*tensor, &*expected, &*found), ("class", "2 numbers", "[1,3]"));
    let levels = many::bundle().edit("\"more\", \"most\"", "\"most\"").edit("[0.5, 0.5, 0.5]\n[[", "[0.5, 0.5]\n[[");
    assert_eq!(shape_error(&levels).0, "grade");
    let reasons = many::bundle()
        .edit("reasons = [", "reasons = [\n{ code = \"odd\", text = \"odd\", outcome = \"ungradable\" },");
    assert_eq!(shape_error(&reasons), ("fit".to_owned(), "4 numbers".to_owned(), "[1,3]".to_owned()));
    // A list where a map is needed, a map where a list is needed, two maps where one is needed.
    let swapped =
        many::bundle().edit("tensor = \"where\"", "tensor = \"x\"").edit("tensor = \"fit\"", "tensor = \"where\"");
    assert_eq!(shape_error(&swapped.edit("tensor = \"x\"", "tensor = \"fit\"")).0, "where");
    let one = many::bundle()
        .edit("kind = \"nuclei_logits\"", "kind = \"heat_logits\"\nthreshold = 0.5\nregions_max = 1")
        .edit("interior_threshold = 0.5\nseed_threshold = 0.25\narea_min_px = 4\n", "")
        .edit("um_per_px = 0.5\n", "")
        .edit("roi = \"window\"", "roi = \"full_frame\"")
        .edit(
            "label = \"nuclei\"\ncode = { scheme = \"99FOVEA\", value = \"nuclei-count\", meaning = \"nuclei-count\" }",
            "label = \"nuclei\"",
        );
    assert_eq!(
        shape_error(&one),
        ("maps".to_owned(), "[1,1,h,w], sides of 1 to 1024".to_owned(), "[1,2,64,64]".to_owned())
    );
    // An output that the manifest does not know, and one that the graph does not end in.
    let unknown = many::bundle().edit("[[networks.outputs]]\ntensor = \"why\"\nkind = \"heat_logits\"\nlabel = \"what the answer rests on\"\nthreshold = 0.5\nregions_max = 3\n", "");
    assert!(matches!(graph_error(&unknown), GraphError::Outputs { expected: 4, found: 5 }));
    let inner = many::bundle().edit("tensor = \"class\"", "tensor = \"class-mean\"");
    assert!(matches!(graph_error(&inner), GraphError::NoTensor { key: "networks.outputs.tensor" }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Signed, so that the parsers behind the signature are reached.
    #[test]
    fn a_mutated_graph_or_manifest_never_panics(at in 0usize..8000, byte in any::<u8>(), manifest in any::<bool>()) {
        let mut bundle = many::bundle();
        if manifest {
            let mut bytes = bundle.manifest.into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte & 0x7f;
            bundle.manifest = String::from_utf8(bytes).unwrap();
        } else {
            let bytes = bundle.files.get_mut("frame.xml").unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        let _either = Bundle::open(&bundle.write(folder.path()), &trusted());
    }
}
