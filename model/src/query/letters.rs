//! Letters: the form in which texts are matched where upper and lower case are one.
//!
//! Two texts that people take for the same word have the same form: Unicode's compatibility
//! composition (NFKC) and case folding, and Arabic as it is typed: one alef, one ya, one kaf, ta
//! marbuta as ha, no hamza carriers, no tatweel, no vowel marks, digits as 0 to 9. Signs that
//! nobody sees (joiners, marks of direction) are left out.
//!
//! Promise: the form of a form is itself; texts of ASCII cost one pass. The form is for matching
//! only: what is stored and shown is the text as it was sent.

use std::borrow::Cow;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizer;

/// The form of a text in which it is matched.
pub fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(text.to_ascii_lowercase()),
            false => Cow::Borrowed(text),
        };
    }
    let normalizer = ComposingNormalizer::new_nfkc();
    let composed = normalizer.normalize(text);
    let lower = CaseMapper::new().fold_string(&composed);
    // Folding may leave what can be composed again.
    let plain: String = normalizer.normalize(&lower).chars().filter_map(plain).collect();
    // A mark that was dropped may have kept two letters from being composed.
    match normalizer.normalize(&plain) {
        Cow::Borrowed(_) => Cow::Owned(plain),
        Cow::Owned(composed) => Cow::Owned(composed.chars().filter_map(self::plain).collect()),
    }
}

/// The letter a folded one stands for; `None` for one that makes no difference.
fn plain(letter: char) -> Option<char> {
    Some(match letter {
        // Alef with hamza, madda or wasla.
        '\u{622}' | '\u{623}' | '\u{625}' | '\u{671}'..='\u{673}' | '\u{675}' => '\u{627}',
        // Waw and ya as carriers of a hamza, alef maqsura, the ya and kaf of Persian keyboards.
        '\u{624}' | '\u{676}' => '\u{648}',
        '\u{626}' | '\u{649}' | '\u{678}' | '\u{6cc}' => '\u{64a}',
        '\u{6a9}' => '\u{643}',
        // Ta marbuta, and the two letters that look like it without its dots.
        '\u{629}' | '\u{6c0}' | '\u{6c1}' | '\u{6c2}' | '\u{6c3}' | '\u{6d5}' => '\u{647}',
        digit @ '\u{660}'..='\u{669}' => ascii_digit(digit, '\u{660}'),
        digit @ '\u{6f0}'..='\u{6f9}' => ascii_digit(digit, '\u{6f0}'),
        // Tatweel, vowel marks, hamza and madda as marks, signs of recitation.
        '\u{640}'
        | '\u{64b}'..='\u{65f}'
        | '\u{670}'
        | '\u{674}'
        | '\u{610}'..='\u{61a}'
        | '\u{6d6}'..='\u{6dc}'
        | '\u{6df}'..='\u{6e4}'
        | '\u{6e7}'
        | '\u{6e8}'
        | '\u{6ea}'..='\u{6ed}'
        | '\u{8d3}'..='\u{8e1}'
        | '\u{8e3}'..='\u{8ff}' => return None,
        // The dotless i, and the dot that is left of a capital one with a dot.
        '\u{131}' => 'i',
        '\u{307}' => return None,
        // Soft hyphen, joiners, marks of direction, variation selectors, byte order mark.
        '\u{ad}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' => return None,
        other => other,
    })
}

fn ascii_digit(digit: char, zero: char) -> char {
    char::from_digit(u32::from(digit) - u32::from(zero), 10).unwrap_or(digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_take_for_one_word_has_one_form() {
        for same in [
            &["Φασολια ς", "ΦΑΣΟΛΙΑ Σ", "φασολια σ"][..],
            &["Straße", "STRASSE", "strasse"],
            &["İstanbul", "istanbul", "ISTANBUL", "ıstanbul"],
            &["ＡＢＣ１", "abc1", "ＡbC１"],
            &["ﬁle", "FILE"],
            &["É", "e\u{301}", "é"],
            &["ΐ", "\u{1fd3}", "ι\u{308}\u{301}"],
            &["أحمد", "احمد", "إحمد", "آحمد", "ٱحمد", "أَحْمَد", "أحـــمد", "ا\u{654}حمد"],
            &["فاطمة", "فاطمه", "فَاطِمَة"],
            &["مستشفى", "مستشفي", "مستشفی"],
            &["مسؤول", "مسوول"],
            &["شاطئ", "شاطى", "شاطي"],
            &["٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹", "0123456789"],
            &["ﻻ", "لا", "لأ", "لآ"],
            &["هٰذا", "هذا"],
            &["كتاب", "کتاب"],
            &["می\u{200c}خواهم", "ميخواهم", "\u{200f}میخواهم\u{200e}"],
        ] {
            let forms: Vec<_> = same.iter().map(|text| folded(text)).collect();
            assert!(forms.iter().all(|form| *form == forms[0]), "{same:?}: {forms:?}");
        }
        for different in [["احمد", "حمد"], ["e", "é"], ["ب", "ت"], ["ا", "ع"], ["ss", "s"]]
        {
            assert_ne!(folded(different[0]), folded(different[1]), "{different:?}");
        }
    }

    #[test]
    fn a_text_of_small_ascii_letters_is_its_own_form() {
        assert!(matches!(folded("plain 1%_"), Cow::Borrowed("plain 1%_")));
        assert_eq!(folded("PLAIN"), "plain");
    }

    proptest! {
        #[test]
        fn the_form_of_a_form_is_itself(
            text in "\\PC{0,20}",
            arabic in "[\u{600}-\u{6ff}\u{fb50}-\u{fdff}\u{fe70}-\u{feff}\u{300}-\u{30f}a-zİıΣς]{0,12}",
        ) {
            for text in [text, arabic] {
                let once = folded(&text).into_owned();
                prop_assert_eq!(&*folded(&once), once.as_str());
            }
        }

        #[test]
        fn upper_and_lower_case_have_one_form(text in "[a-zA-Zà-öø-ÿα-ωά-ώа-яё]{0,12}") {
            let (upper, lower) = (text.to_uppercase(), text.to_lowercase());
            prop_assert_eq!(folded(&upper), folded(&lower));
        }
    }
}
