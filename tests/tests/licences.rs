//! Holds every outside crate against deny.toml: licences, bans, sources. One list for this test and for cargo-deny.

use fovea_tests::{metadata, paths, spdx};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deny {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Bans {
    multiple_versions: Level,
    skip: Vec<Named>,
    deny: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Sources {
    unknown_registry: Level,
    unknown_git: Level,
    allow_registry: Vec<String>,
    allow_git: Vec<String>,
}

/// This test knows no other level: a list that is only warned about holds nothing.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

fn deny() -> Deny {
    let path = paths::workspace().join("deny.toml");
    let text = std::fs::read_to_string(path).expect("deny.toml is there");
    toml::from_str(&text).expect("deny.toml has the form that this test reads")
}

fn every_package(deny: &Deny) -> BTreeMap<(String, String), metadata::Package> {
    let mut all = BTreeMap::new();
    for target in &deny.graph.targets {
        for package in metadata::everything(target).expect("cargo metadata").packages {
            all.insert((package.name.clone(), package.version.clone()), package);
        }
    }
    assert!(all.len() > 20, "the graph has only {} crates: something else was read", all.len());
    all
}

#[test]
fn every_crate_has_an_accepted_licence() {
    let deny = deny();
    let mut wrong = Vec::new();
    for ((name, version), package) in every_package(&deny) {
        match package.license.as_deref().map(|expression| spdx::satisfied(expression, &deny.licenses.allow)) {
            Some(Ok(true)) => {}
            other => wrong.push(format!("{name} {version}: {:?} ({other:?})", package.license)),
        }
    }
    assert!(wrong.is_empty(), "not covered by deny.toml [licenses]:\n{}", wrong.join("\n"));
}

#[test]
fn no_banned_crate_and_no_unexplained_second_version() {
    let deny = deny();
    let Level::Deny = deny.bans.multiple_versions;
    let packages = every_package(&deny);
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, version) in packages.keys() {
        versions.entry(name).or_default().insert(version);
    }
    let mut wrong = Vec::new();
    for banned in deny.bans.deny.iter().filter(|banned| versions.contains_key(banned.name.as_str())) {
        wrong.push(format!("{} is banned: {}", banned.name, banned.reason));
    }
    let skipped: BTreeSet<&str> = deny.bans.skip.iter().map(|skip| skip.name.as_str()).collect();
    for (name, found) in versions.iter().filter(|(name, found)| found.len() > 1 && !skipped.contains(*name)) {
        wrong.push(format!("{name} is there in versions {found:?}"));
    }
    // A skip that is no longer needed would hide the next duplicate.
    for stale in deny.bans.skip.iter().filter(|skip| versions.get(skip.name.as_str()).is_none_or(|v| v.len() < 2)) {
        wrong.push(format!("{} needs no skip any more ({})", stale.name, stale.reason));
    }
    assert!(wrong.is_empty(), "deny.toml [bans]:\n{}", wrong.join("\n"));
}

#[test]
fn every_crate_comes_from_an_accepted_source() {
    let deny = deny();
    let (Level::Deny, Level::Deny) = (&deny.sources.unknown_registry, &deny.sources.unknown_git);
    let registries: BTreeSet<String> = deny.sources.allow_registry.iter().map(|r| format!("registry+{r}")).collect();
    let mut wrong = Vec::new();
    for ((name, version), package) in every_package(&deny) {
        let Some(source) = package.source else { continue };
        let from_git = deny.sources.allow_git.iter().any(|git| source.starts_with(&format!("git+{git}")));
        if !registries.contains(&source) && !from_git {
            wrong.push(format!("{name} {version}: {source}"));
        }
    }
    assert!(wrong.is_empty(), "not covered by deny.toml [sources]:\n{}", wrong.join("\n"));
}
