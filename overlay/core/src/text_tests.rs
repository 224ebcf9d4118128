use proptest::prelude::*;

use super::*;

/// Whether the index would find `indexed` by `query`.
fn finds(indexed: &[String], query: &Query) -> bool {
    query.terms.iter().all(|term| indexed.contains(term))
        && query
            .prefixes
            .iter()
            .all(|prefix| indexed.iter().any(|term| term.starts_with(prefix)))
}

#[test]
fn case_width_and_diacritics_do_not_matter() {
    assert_eq!(
        terms("Ｃafé ÉCOLE straße Œuvre"),
        ["cafe", "ecole", "strasse", "oeuvre"]
    );
    assert_eq!(terms("cafe\u{301}"), ["cafe"]);
    assert_eq!(terms("ΣΊΣΥΦΟΣ"), ["σισυφοσ"]);
    // Й is a letter of its own, not an И with a mark.
    assert_eq!(terms("Йод"), ["йод"]);
}

#[test]
fn words_are_split_at_what_is_no_letter_or_digit() {
    assert_eq!(
        terms("ubuntu-24.04 LTS, ubuntu"),
        ["ubuntu", "24", "04", "lts"]
    );
    assert!(terms(" ... !? \u{301}").is_empty());
}

#[test]
fn compound_names_are_found_whole_and_by_their_parts() {
    assert_eq!(terms("HTTPServer"), ["httpserver", "http", "server"]);
    assert_eq!(terms("snake_case"), ["snakecase", "snake", "case"]);
    assert_eq!(terms("iPhone"), ["iphone", "phone"]);
    for search in ["parseHttpHeader", "parsehttpheader", "http", "header parse"] {
        assert!(finds(&terms("parseHttpHeader"), &query(search)), "{search}");
    }
    for search in ["my_long_name", "long_name", "mylongname", "name"] {
        assert!(finds(&terms("my_long_name"), &query(search)), "{search}");
    }
    assert!(finds(&terms("javascript"), &query("JavaScript")));
}

#[test]
fn a_star_marks_a_beginning() {
    let cut = query("ubuntu serv* 木");
    assert_eq!(cut.terms, ["ubuntu"]);
    assert_eq!(cut.prefixes, ["serv", "木"]);
    assert_eq!(
        query("a_b*"),
        Query {
            terms: vec!["a".into()],
            prefixes: vec!["b".into()]
        }
    );
}

#[test]
fn unspaced_text_is_cut_into_pairs() {
    assert_eq!(terms("東京都"), ["東京", "京都", "都"]);
    assert_eq!(terms("木"), ["木"]);
    assert_eq!(terms("Linux入門"), ["linux", "入門", "門"]);
    assert_eq!(query("東京都").terms, ["東京", "京都"]);
    assert!(query(&"東京都".repeat(40)).terms.len() <= MAX_RUN_PAIRS);
    assert!(finds(&terms("ｶﾞｰﾃﾞﾝ"), &query("ガーデン")));
}

#[test]
fn input_is_limited_and_name_terms_come_first() {
    let long = "x".repeat(MAX_TEXT + 10);
    assert_eq!(terms(&long), ["x".repeat(MAX_TERM)]);
    assert_eq!(terms(&"é".repeat(100))[0].len(), MAX_TERM);
    let text: String = (0..500).map(|i| format!("w{i} ")).collect();
    let cut = item_terms("the name", &text);
    assert_eq!(cut.len(), MAX_TERMS);
    assert_eq!(cut[..2], ["the", "name"]);
}

#[test]
fn folding_is_a_fixed_point_for_every_character() {
    for c in '\0'..=char::MAX {
        let once = fold(&c.to_string());
        assert_eq!(fold(&once), once, "{c:?} {:x}", u32::from(c));
    }
}

#[test]
fn a_mark_without_a_letter_is_no_part_of_a_word() {
    let terms = terms("A_\u{1ab0}\u{11915}");
    assert!(terms.contains(&"\u{11915}".to_owned()), "{terms:?}");
    assert!(
        terms
            .iter()
            .all(|term| finds(std::slice::from_ref(term), &query(term)))
    );
}

fn every_term_finds_itself(text: &str) {
    for term in terms(text) {
        let found = finds(std::slice::from_ref(&term), &query(&term));
        assert!(found, "{term:?} by {:?}", query(&term));
    }
}

#[test]
fn a_mark_of_another_script_is_no_part_of_unspaced_text() {
    for text in ["\u{1b150}\u{11d90}\u{edc}", "漢\u{301}字"] {
        every_term_finds_itself(text);
    }
    assert!(finds(&terms("漢\u{301}字"), &query("漢字")));
}

#[test]
fn a_tone_mark_begins_no_pair() {
    for text in ["丽\u{ec8}ￒ", "ก\u{e48}าว"] {
        every_term_finds_itself(text);
    }
    assert!(finds(&terms("ข\u{e48}าว"), &query("ข\u{e48}าว")));
}

proptest! {
    #[test]
    fn any_text_yields_folded_terms_that_find_themselves(text in "\\PC{0,80}|.{0,80}") {
        for term in terms(&text) {
            prop_assert_eq!(&fold(&term), &term);
            prop_assert!(term.len() <= MAX_TERM);
            let found = finds(std::slice::from_ref(&term), &query(&term));
            prop_assert!(found, "{:?} by {:?}", term, query(&term));
        }
    }

    #[test]
    fn every_stretch_of_unspaced_text_is_found(
        text in "[\u{4e00}-\u{4f00}\u{3041}-\u{3096}\u{30a1}-\u{30fa}\u{ac00}-\u{ad00}]{1,30}",
        start in any::<prop::sample::Index>(),
        len in 1usize..30,
    ) {
        let chars: Vec<char> = text.chars().collect();
        let start = start.index(chars.len());
        let part: String = chars[start..].iter().take(len).collect();
        prop_assert!(finds(&terms(&text), &query(&part)), "{} in {}", part, text);
    }

    #[test]
    fn every_word_of_a_text_is_found(text in "[a-zA-Z0-9éÉñ_ .-]{0,60}", pick in any::<prop::sample::Index>()) {
        let words: Vec<&str> = text.split([' ', '.', '-']).collect();
        let word = words[pick.index(words.len())];
        prop_assert!(finds(&terms(&text), &query(word)), "{} in {}", word, text);
        let begin: String = word.chars().take(3).chain(['*']).collect();
        prop_assert!(finds(&terms(&text), &query(&begin)), "{} in {}", begin, text);
    }
}
