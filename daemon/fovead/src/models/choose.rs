//! Which bundles are offered to the worker. This is the one place that knows the precedence.
//!
//! In: the built-in bundles of `[infer] bundles`, the installed versions, what `active.json` says. Out: [`Choice`].
//! Promise, for each model id: the active installed version serves; when the box refuses it, the version that was active before it;
//! when that is refused too, the built-in bundle of the id. Without an entry in `active.json` the built-in bundle serves, and installed
//! versions that nobody activated do not. Where a built-in bundle stands in the configuration, its replacement stands too, because the
//! first model that fits an object answers; ids without a built-in bundle follow by name.

use super::active::Active;
use fovea_core::Reason;
use fovea_worker::{ModelState, ModelStatus};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A built-in bundle, with what its trusted manifest says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuiltIn {
    pub path: PathBuf,
    /// None where the manifest cannot be read or trusted: then it is offered as it is, and refused with the reason.
    pub id: Option<String>,
    pub version: Option<String>,
}

/// How far each id has fallen: 0 is its first choice.
pub type Ranks = BTreeMap<String, usize>;

/// Everything that may serve, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Choice {
    places: Vec<Place>,
}

/// One place in the order.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    /// Offered as it is.
    Fixed(PathBuf),
    /// First, second and third choice; each is a set of paths, of which the worker serves the highest version.
    Ranked { id: String, choices: Vec<Vec<PathBuf>> },
}

/// A bundle that should have served, and why it does not.
#[derive(Clone, PartialEq, Debug)]
pub struct Fallen {
    pub id: String,
    pub path: PathBuf,
    pub reason: Reason,
}

impl Choice {
    /// `path` says where an installed version lies.
    pub fn new(built_in: &[BuiltIn], active: &Active, path: impl Fn(&str, &str) -> PathBuf) -> Self {
        let mut places: Vec<Place> = Vec::new();
        let of_id = |id: &str| -> Vec<PathBuf> {
            built_in
                .iter()
                .filter(|bundle| bundle.id.as_deref() == Some(id))
                .map(|bundle| bundle.path.clone())
                .collect()
        };
        let ranked = |id: &str| {
            let entry = active.models.get(id).cloned().unwrap_or_default();
            let installed =
                [&entry.active, &entry.previous].into_iter().flatten().map(|version| vec![path(id, version)]);
            let (installed, built_in) = (installed.collect::<Vec<_>>(), of_id(id));
            // An entry without an active version means that the built-in one was chosen.
            let mut choices =
                if entry.active.is_some() { [installed, vec![built_in]] } else { [vec![built_in], installed] }.concat();
            choices.retain(|paths| !paths.is_empty());
            Place::Ranked { id: id.to_owned(), choices }
        };
        let known = |places: &[Place], wanted: &str| {
            places.iter().any(|place| matches!(place, Place::Ranked { id, .. } if id == wanted))
        };
        for bundle in built_in {
            match &bundle.id {
                None => places.push(Place::Fixed(bundle.path.clone())),
                Some(id) if !known(&places, id) => places.push(ranked(id)),
                Some(_) => {}
            }
        }
        for id in active.models.keys() {
            if !known(&places, id) {
                places.push(ranked(id));
            }
        }
        Self { places }
    }

    /// What to offer when ids have fallen so far.
    pub fn paths(&self, ranks: &Ranks) -> Vec<PathBuf> {
        let of = |place: &Place| match place {
            Place::Fixed(path) => vec![path.clone()],
            Place::Ranked { id, choices } => choices.get(rank(ranks, id)).cloned().unwrap_or_default(),
        };
        self.places.iter().flat_map(of).collect()
    }

    /// Lets each id fall by one whose choice the worker refused whole and that has a further one. Says what fell.
    pub fn fall(&self, ranks: &mut Ranks, models: &[ModelStatus]) -> Vec<Fallen> {
        let mut fallen = Vec::new();
        for place in &self.places {
            let Place::Ranked { id, choices } = place else { continue };
            let now = rank(ranks, id);
            let (Some(paths), true) = (choices.get(now), now + 1 < choices.len()) else { continue };
            let refused: Vec<Fallen> = paths
                .iter()
                .filter_map(|path| {
                    refusal(models, path).map(|reason| Fallen { id: id.clone(), path: path.clone(), reason })
                })
                .collect();
            if refused.len() == paths.len() {
                ranks.insert(id.clone(), now + 1);
                fallen.extend(refused);
            }
        }
        fallen
    }

    /// Why none of what was offered for `id` serves; none where one does.
    pub fn refused_whole(&self, ranks: &Ranks, id: &str, models: &[ModelStatus]) -> Option<Reason> {
        let place = self.places.iter().find_map(|place| match place {
            Place::Ranked { id: of, choices } if of == id => choices.get(rank(ranks, id)),
            _ => None,
        });
        let mut reasons = place?.iter().map(|path| refusal(models, path));
        reasons.clone().all(|reason| reason.is_some()).then(|| reasons.next().flatten())?
    }
}

fn rank(ranks: &Ranks, id: &str) -> usize {
    ranks.get(id).copied().unwrap_or(0)
}

fn refusal(models: &[ModelStatus], path: &Path) -> Option<Reason> {
    models.iter().find(|status| status.path == path).and_then(|status| match &status.state {
        ModelState::Refused(reason) => Some(reason.clone()),
        ModelState::Serving(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::active::Entry;
    use super::*;

    fn built_in(id: Option<&str>, path: &str) -> BuiltIn {
        BuiltIn { path: path.into(), id: id.map(str::to_owned), version: None }
    }

    fn active(entries: &[(&str, Option<&str>, Option<&str>)]) -> Active {
        let entry = |(id, active, previous): &(&str, Option<&str>, Option<&str>)| {
            ((*id).to_owned(), Entry { active: active.map(str::to_owned), previous: previous.map(str::to_owned) })
        };
        Active { models: entries.iter().map(entry).collect() }
    }

    fn choice(active: &Active) -> Choice {
        let built_in =
            [built_in(Some("eye"), "/b/eye"), built_in(None, "/b/broken"), built_in(Some("lung"), "/b/lung")];
        Choice::new(&built_in, active, |id, version| format!("/s/{id}/{version}").into())
    }

    fn refused(paths: &[&str]) -> Vec<ModelStatus> {
        let state = || ModelState::Refused(Reason::new("golden_mismatch", "no", ""));
        paths.iter().map(|path| ModelStatus { path: path.into(), state: state() }).collect()
    }

    #[test]
    fn installed_takes_the_place_of_built_in_and_what_nobody_activated_does_not_serve() {
        let paths = |active: &Active| choice(active).paths(&Ranks::new());
        assert_eq!(paths(&Active::default()), ["/b/eye", "/b/broken", "/b/lung"].map(PathBuf::from));
        let some =
            active(&[("eye", Some("2.0.0"), None), ("thyroid", Some("1.0.0"), None), ("lung", None, Some("9.9.9"))]);
        assert_eq!(paths(&some), ["/s/eye/2.0.0", "/b/broken", "/b/lung", "/s/thyroid/1.0.0"].map(PathBuf::from));
    }

    #[test]
    fn inv_03_what_is_refused_gives_way_to_the_version_before_and_that_to_the_built_in_one() {
        let choice = choice(&active(&[("eye", Some("2.0.0"), Some("1.5.0")), ("thyroid", Some("1.0.0"), None)]));
        let mut ranks = Ranks::new();
        assert_eq!(choice.fall(&mut ranks, &refused(&["/s/thyroid/1.0.0", "/b/broken"])), [], "nothing to fall to");
        let fallen = choice.fall(&mut ranks, &refused(&["/s/eye/2.0.0"]));
        assert_eq!((fallen[0].id.as_str(), fallen[0].path.to_str()), ("eye", Some("/s/eye/2.0.0")));
        assert!(choice.refused_whole(&ranks, "thyroid", &refused(&["/s/thyroid/1.0.0"])).is_some());
        assert!(choice.refused_whole(&ranks, "eye", &refused(&["/s/eye/2.0.0"])).is_none(), "another is asked now");
        assert_eq!(choice.paths(&ranks)[0], PathBuf::from("/s/eye/1.5.0"));
        choice.fall(&mut ranks, &refused(&["/s/eye/1.5.0"]));
        assert_eq!(choice.paths(&ranks)[0], PathBuf::from("/b/eye"));
        assert_eq!(choice.fall(&mut ranks, &refused(&["/b/eye"])), [], "the last one stays, refused");
        assert_eq!(choice.paths(&ranks).len(), 4);
    }

    #[test]
    fn of_several_built_in_versions_one_that_serves_is_enough() {
        let two = [built_in(Some("eye"), "/b/1"), built_in(Some("eye"), "/b/2")];
        let choice =
            Choice::new(&two, &active(&[("eye", None, Some("3.0.0"))]), |_, version| format!("/s/{version}").into());
        let mut ranks = Ranks::new();
        assert_eq!(choice.paths(&ranks), ["/b/1", "/b/2"].map(PathBuf::from));
        assert_eq!(choice.fall(&mut ranks, &refused(&["/b/1"])), []);
        assert_eq!(choice.fall(&mut ranks, &refused(&["/b/1", "/b/2"])).len(), 2);
        assert_eq!(choice.paths(&ranks), ["/s/3.0.0"].map(PathBuf::from));
    }
}
