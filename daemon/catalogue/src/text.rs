//! Person names as they are compared.

/// A person name as it is compared: lower case, each component group without what may be left out at its end; up to three
/// groups (PS3.5 section 6.2.1).
pub(crate) fn folded_groups(name: &str) -> [String; 3] {
    let mut groups = name.split('=').map(|group| group.trim().trim_end_matches(['^', ' ']).to_lowercase());
    std::array::from_fn(|_| groups.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_by_group_without_case_and_empty_ends() {
        assert_eq!(folded_groups("DOE^Jane^^"), ["doe^jane", "", ""]);
        assert_eq!(folded_groups("Yamada^Tarou=山田^太郎"), ["yamada^tarou", "山田^太郎", ""]);
    }
}
