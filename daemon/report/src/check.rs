//! House rules that no validator knows, held over the tree before it is written.
//! In: the root item and the object it is about. Out: nothing, or every rule that is broken.

use crate::codes;
use crate::content::{Item, Value};
use fovea_core::{Code, Uid};

/// A house rule that a tree breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The document is not headed as TID 1500.
    #[error("the root is not a TID 1500 measurement report")]
    Root,
    /// There is no measurement group.
    #[error("there is no measurement group")]
    NoGroup,
    /// A group cannot be followed over time.
    #[error("a measurement group has not one tracking identifier and one tracking UID")]
    Tracking,
    /// A group does not say which image it is about, or says another.
    #[error("a measurement group does not name the image it is about")]
    SourceImage,
    /// The outcome code is missing: nothing found and not run would look alike.
    #[error("a measurement group does not say how the analysis ended")]
    Outcome,
    /// A number stands alone.
    #[error("a number has no unit or no algorithm beside it")]
    BareNumber,
    /// The preliminary notice is missing.
    #[error("a measurement group has no notice that it is preliminary")]
    Notice,
    /// A place without an outline, or with several.
    #[error("a place in the image has not one outline")]
    Outline,
    /// No device says it.
    #[error("no device observer with a UID")]
    Observer,
    /// A code or text without content.
    #[error("a code or text is empty")]
    Empty,
}

/// Checks the tree of a report on `image`.
///
/// # Errors
/// Every rule that is broken, in no order of weight.
pub fn check(root: &Item, image: &Uid) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    let mut hold = |rule: bool, fault| {
        if !rule {
            faults.push(fault);
        }
    };
    hold(
        is(root, &codes::measurement_report()) && matches!(root.value, Value::Container { template: Some("1500") }),
        Fault::Root,
    );
    let is_device = |item: &&Item| is(item, &codes::device_uid()) && matches!(item.value, Value::UidRef(_));
    hold(root.children.iter().filter(is_device).count() == 1, Fault::Observer);
    let mut groups = Vec::new();
    let mut is_whole = true;
    root.walk(&mut |item| {
        if is(item, &codes::measurement_group()) {
            groups.push(item);
        }
        is_whole &= has_content(item);
    });
    hold(is_whole, Fault::Empty);
    hold(!groups.is_empty(), Fault::NoGroup);
    for group in groups {
        // A place in the image (TID 1410) leans on the image-level group (TID 1501) for outcome and notice.
        let is_place = matches!(group.value, Value::Container { template: Some("1410") });
        let count = |concept: Code| group.children.iter().filter(|item| is(item, &concept)).count();
        hold(count(codes::tracking_identifier()) == 1 && count(codes::tracking_uid()) == 1, Fault::Tracking);
        let names_image = |item: &Item| matches!(&item.value, Value::Image { instance, .. } if instance == image);
        if is_place {
            let outlines = || group.children.iter().filter(|item| matches!(item.value, Value::Outline { .. }));
            hold(outlines().count() == 1, Fault::Outline);
            hold(outlines().all(|outline| outline.children.iter().any(names_image)), Fault::SourceImage);
        } else {
            hold(count(codes::outcome()) == 1, Fault::Outcome);
            hold(count(codes::comment()) >= 1, Fault::Notice);
            hold(group.children.iter().any(names_image), Fault::SourceImage);
        }
        let has_number = group.children.iter().any(|item| matches!(item.value, Value::Number { .. }));
        hold(!has_number || count(codes::algorithm_name()) == 1, Fault::BareNumber);
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn is(item: &Item, concept: &Code) -> bool {
    item.concept.scheme == concept.scheme && item.concept.value == concept.value
}

fn has_content(item: &Item) -> bool {
    let coded = |code: &Code| !code.scheme.is_empty() && !code.value.is_empty() && !code.meaning.is_empty();
    coded(&item.concept)
        && match &item.value {
            Value::Code(code) => coded(code),
            Value::Text(text) => !text.trim().is_empty(),
            Value::Number { value, unit } => !value.is_empty() && coded(unit),
            Value::Outline { points } => points.len() >= 3 && points.iter().flatten().all(|part| part.is_finite()),
            Value::Container { .. } | Value::UidRef(_) | Value::Image { .. } => true,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Relation;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn whole() -> Item {
        let leaf = |concept, value| Item::new(Relation::Contains, concept, value);
        let group = leaf(codes::measurement_group(), Value::Container { template: Some("1501") }).with(vec![
            leaf(codes::tracking_identifier(), Value::Text("t".into())),
            leaf(codes::tracking_uid(), Value::UidRef(uid("1.2"))),
            leaf(codes::algorithm_name(), Value::Text("a".into())),
            leaf(codes::probability(), Value::Number { value: "0.5".into(), unit: codes::no_units() }),
            leaf(codes::outcome(), Value::Code(codes::ended(fovea_core::Outcome::Finding))),
            leaf(codes::comment(), Value::Text("n".into())),
            leaf(codes::source_of_measurement(), Value::Image { class: uid("1.3"), instance: uid("1.4"), frame: None }),
        ]);
        leaf(codes::measurement_report(), Value::Container { template: Some("1500") })
            .with(vec![leaf(codes::device_uid(), Value::UidRef(uid("1.5"))), group])
    }

    #[test]
    fn a_place_needs_one_outline_in_the_image() {
        let leaf = |concept, value| Item::new(Relation::Contains, concept, value);
        let image = |instance| leaf(codes::source_image(), Value::Image { class: uid("1.3"), instance, frame: None });
        let points = vec![[0.0, 0.0], [4.0, 0.0], [4.0, 4.0]];
        let outline = |points, of| leaf(codes::image_region(), Value::Outline { points }).with(vec![image(uid(of))]);
        let with = |outlines: Vec<Item>| {
            let mut children = vec![
                leaf(codes::tracking_identifier(), Value::Text("t".into())),
                leaf(codes::tracking_uid(), Value::UidRef(uid("1.2"))),
            ];
            children.extend(outlines);
            let mut tree = whole();
            let place = leaf(codes::measurement_group(), Value::Container { template: Some("1410") });
            tree.children.push(place.with(children));
            check(&tree, &uid("1.4"))
        };
        assert_eq!(with(vec![outline(points.clone(), "1.4")]), Ok(()));
        assert_eq!(with(vec![]), Err(vec![Fault::Outline]));
        assert_eq!(with(vec![outline(points.clone(), "1.9")]), Err(vec![Fault::SourceImage]));
        assert_eq!(with(vec![outline(points[..2].to_vec(), "1.4")]), Err(vec![Fault::Empty]));
    }

    #[test]
    fn each_house_rule_is_noticed_when_it_is_broken() {
        assert_eq!(check(&whole(), &uid("1.4")), Ok(()));
        let expected =
            [Fault::Tracking, Fault::Tracking, Fault::BareNumber, Fault::Outcome, Fault::Notice, Fault::SourceImage];
        for (fault, lost) in expected.into_iter().zip([0usize, 1, 2, 4, 5, 6]) {
            let mut tree = whole();
            tree.children[1].children.remove(lost);
            assert_eq!(check(&tree, &uid("1.4")), Err(vec![fault]), "without child {lost}");
        }
        assert_eq!(check(&whole(), &uid("9.9")), Err(vec![Fault::SourceImage]));
        let mut tree = whole();
        tree.children.remove(0);
        assert_eq!(check(&tree, &uid("1.4")), Err(vec![Fault::Observer]));
        tree = whole();
        tree.children.remove(1);
        assert_eq!(check(&tree, &uid("1.4")), Err(vec![Fault::NoGroup]));
        tree = whole();
        tree.children[1].children[3].value = Value::Number { value: "1".into(), unit: Code::new("UCUM", "", "") };
        assert_eq!(check(&tree, &uid("1.4")), Err(vec![Fault::Empty]));
    }
}
