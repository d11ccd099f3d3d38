//! Uses of operators that a backend refuses by its own word, although it takes others with the same element types: what
//! the support tables cannot tell.

use crate::known::Pattern;
use crate::model::Model;
use serde::Deserialize;
use std::sync::LazyLock;

/// The committed list.
const TEXT: &str = include_str!("lacks.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lack {
    backend: String,
    /// Those in which it was seen.
    versions: semver::VersionReq,
    /// One such use.
    node: Pattern,
    /// What the backend says.
    says: String,
}

#[derive(Deserialize)]
struct File {
    lack: Vec<Lack>,
}

static ALL: LazyLock<Vec<Lack>> = LazyLock::new(|| toml::from_str::<File>(TEXT).map_or(Vec::new(), |file| file.lack));

/// What a backend is known to say when it is asked for what some node of the model wants. To ask it costs time, and its
/// refusal is no fault.
pub fn lacks(backend: &str, version: &str, model: &Model) -> Option<&'static str> {
    let version = semver::Version::parse(version).ok()?;
    let applies = |lack: &&Lack| lack.backend == backend && lack.versions.matches(&version);
    let met = |lack: &&Lack| model.nodes.iter().any(|node| lack.node.fits(model, node));
    ALL.iter().filter(applies).find(met).map(|lack| lack.says.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_read() {
        let listed = TEXT.matches("[[lack]]").count();
        assert_eq!(toml::from_str::<File>(TEXT).unwrap_or_else(|error| panic!("{error}")).lack.len(), listed);
        assert_eq!(ALL.len(), listed);
    }
}
