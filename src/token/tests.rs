//! Tokens of real pools, tokens that we make, and everything that can be done to them.

use proptest::prelude::*;

use super::example::{Example, envelope, number, numbers, packed, pair, presence, sealed, text};
use super::*;

/// From openzfs#14153, where its reporter also tells what is in it.
const RAW_AND_INCREMENTAL: &str = "1-fd3f3ea61-130-789c636064000310a501c49c50360710a715e5e7a69766a6\
304081e4c3753e7696b1cd0a40363b92bafca4acd4e412081f0430e4d3d28a534b18e00024cf86249f5459925acc802a\
8facbf241fe28aaa90ef315b8e16ea3920c97382e5f312735319188a528b4b7353816695e8a7e62517e9266764e6a438\
94679664e826eaa665e6a42299cfcd80f077727e6e01506f717e36444c02ea3e987c5162394c8a010013de2bc9";

/// From openzfs#10439: ZFS 0.8, neither large blocks nor compression.
const FULL: &str = "1-eb46e146b-d0-789c636064000310a500c4ec50360710e72765a5269730307441d560c8a7a51\
5a7968064d6b1c0e4d990e4932a4b528b817403d31a566cfa4bf2d34b335318187a2da5b789c459fb3920c97382e5f31\
27353191852124b12758b4bf28b12d353f50d8ce2931293b34b0b1c924ae38d0c0c2d0d8c0c2c19e0000029161d79";

fn read(text: &str) -> Result<Token, TokenError> {
    text.parse()
}

fn example() -> Example {
    Example::of(Some(7), u64::MAX - 1, "tank/a b@s 1:x")
}

#[test]
fn a_token_of_a_real_pool_says_what_its_owner_was_told() {
    let token = read(RAW_AND_INCREMENTAL).unwrap();
    assert_eq!(token.from, Some(Guid(9_465_784_931_539_935_513)));
    assert_eq!(token.to, Guid(3_346_673_376_557_487_226));
    assert_eq!((token.object, token.offset, token.bytes), (1, 0, Bytes(0)));
    assert_eq!(token.to_dataset.as_str(), "resumetest/encr-child");
    assert_eq!(token.to_snapshot.as_str(), "with-a-file");
    let flags = Flags { compressed: true, raw: true, ..Flags::default() };
    assert_eq!((token.flags, token.redacted, token.saved), (flags, false, false));
    assert_eq!(token.to_string(), RAW_AND_INCREMENTAL);
    let token = read(FULL).unwrap();
    assert_eq!((token.from, token.flags), (None, Flags::default()));
    assert!(token.bytes > Bytes(0) && token.object > 1, "{token:?}");
}

#[test]
fn our_examples_are_made_as_zfs_makes_them() {
    let token = read(RAW_AND_INCREMENTAL).unwrap();
    let list = packed(&[
        number("fromguid", token.from.unwrap().0),
        number("object", token.object),
        number("offset", token.offset),
        number("bytes", token.bytes.0),
        number("toguid", token.to.0),
        text("toname", "resumetest/encr-child@with-a-file"),
        presence("compressok"),
        presence("rawok"),
    ]);
    let (length, payload) = read_envelope(RAW_AND_INCREMENTAL).unwrap();
    assert_eq!(length, list.len() as u64);
    let theirs = miniz_oxide::inflate::decompress_to_vec_zlib(&payload).unwrap();
    assert_eq!(theirs, list);
}

#[test]
fn every_field_is_read() {
    let token = read(&example().token()).unwrap();
    assert_eq!((token.from, token.to), (Some(Guid(7)), Guid(u64::MAX - 1)));
    assert_eq!((token.object, token.offset, token.bytes), (9, 0x14_0000, Bytes(0x16_2a10)));
    assert_eq!(token.to_dataset.as_str(), "tank/a b");
    assert_eq!(token.to_snapshot.as_str(), "s 1:x");
    for (flag, expected) in [
        ("embedok", Flags { embedded: true, ..token.flags }),
        ("rawok", Flags { raw: true, ..token.flags }),
    ] {
        assert_eq!(read(&example().with(flag).token()).unwrap().flags, expected);
    }
    assert!(token.flags.large_blocks && token.flags.compressed && !token.flags.embedded);
    assert!(read(&example().with("savedok").token()).unwrap().saved);
    for name in ["redact_snaps", "book_redact_snaps"] {
        let pairs = [example().pairs(), vec![numbers(name, &[1, 2])]].concat();
        assert!(read(&envelope(&packed(&pairs))).unwrap().redacted, "{name}");
    }
}

#[test]
fn what_is_no_token_says_why() {
    let whole = example().token();
    let [_, checksum, length, payload] = whole.split('-').collect::<Vec<_>>()[..] else { panic!() };
    for (text, why) in [
        (String::new(), TokenError::Form),
        ("-".to_owned(), TokenError::Form),
        ("1-0-0".to_owned(), TokenError::Form),
        (format!("{whole}-"), TokenError::Form),
        (format!(" {whole}"), TokenError::Version),
        (format!("2-{checksum}-{length}-{payload}"), TokenError::Version),
        (format!("1-0{checksum}-{length}-{payload}"), TokenError::Form),
        (format!("1-+{checksum}-{length}-{payload}"), TokenError::Form),
        (format!("1-{checksum}-{length}-{}", payload.to_uppercase()), TokenError::Form),
        (format!("1-{checksum}-{length}-{payload}0"), TokenError::Form),
        (format!("1-{}-{length}-{payload}", "f".repeat(17)), TokenError::Form),
        ("1-0-0-".to_owned(), TokenError::Compression),
        (format!("1-{}", "0".repeat(TOKEN_BYTES_MAX)), TokenError::TooLong(TOKEN_BYTES_MAX + 2)),
        (sealed(b"no zlib", 7), TokenError::Compression),
        (envelope(&[]), TokenError::Nvlist(NvlistError::Short { at: 0 })),
    ] {
        assert_eq!(read(&text), Err(why), "{text:.60}");
    }
    let wrong_length = sealed(&miniz_oxide::deflate::compress_to_vec_zlib(&packed(&[]), 6), 17);
    assert_eq!(read(&wrong_length), Err(TokenError::Length { expected: 17, got: 16 }));
    let wrong_sum = format!("1-1-{length}-{payload}");
    assert!(matches!(read(&wrong_sum), Err(TokenError::Checksum { expected: 1, .. })));
}

#[test]
fn a_small_token_cannot_fill_the_memory() {
    let bomb = envelope(&vec![0; PACKED_BYTES_MAX + 1]);
    assert!(bomb.len() < 200);
    assert_eq!(read(&bomb), Err(TokenError::Compression));
}

#[test]
fn a_field_must_be_known_single_and_of_its_type() {
    let with = |more: Vec<u8>| read(&envelope(&packed(&[example().pairs(), vec![more]].concat())));
    let unknown = TokenError::UnknownField("everything".to_owned());
    assert_eq!(with(presence("everything")), Err(unknown));
    assert_eq!(with(number("toguid", 1)), Err(TokenError::Twice("toguid")));
    assert_eq!(with(presence("compressok")), Err(TokenError::Twice("compressok")));
    assert_eq!(with(number("rawok", 1)), Err(TokenError::WrongType("rawok")));
    assert_eq!(with(text("object", "9")), Err(TokenError::WrongType("object")));
    let names = ["fromguid", "object", "offset", "bytes", "toguid", "toname"];
    for (left_out, name) in names.into_iter().enumerate() {
        let mut pairs = example().pairs();
        pairs.remove(left_out);
        let token = read(&envelope(&packed(&pairs)));
        match name {
            "fromguid" => assert_eq!(token.unwrap().from, None),
            name => assert_eq!(token, Err(TokenError::Missing(name))),
        }
    }
    for name in ["tank/a", "tank/a#m", "@s", "tank/a@", "a@b@c", "-x@s", "tank/a;reboot@s"] {
        let token = read(&Example::of(None, 1, name).token());
        assert_eq!(token, Err(TokenError::Name(name.to_owned())));
    }
}

#[test]
fn a_malformed_pair_is_found_wherever_it_is() {
    let malformed = |pairs: &[Vec<u8>]| nvlist::read(&packed(pairs)).err();
    let good = number("object", 9);
    let change = |place: usize, byte: u8| {
        let mut pair = good.clone();
        pair[place] = byte;
        pair
    };
    for (what, pair) in [
        ("negative size", change(3, 0x80)),
        ("size below its header", change(0, 8)),
        ("no name", change(4, 0)),
        ("a name beyond the pair", change(4, 200)),
        ("a name without an end", change(4, 3)),
        ("a name with an end in it", change(17, 0)),
        ("a name that is no text", change(16, 0xff)),
        ("no element", change(8, 0)),
        ("a number of four bytes", pair("object", 8, 1, &[0; 4])),
        ("a number of nine bytes", pair("object", 8, 1, &[0; 9])),
        ("text without an end", pair("toname", 9, 1, b"abcdefgh")),
        ("text behind its end", pair("toname", 9, 1, b"abc\0efg\0")),
        ("text with too much padding", pair("toname", 9, 1, &[b'a', 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("no text", pair("toname", 9, 1, &[0; 8])),
        ("a flag with a value", pair("rawok", 1, 0, &[0; 8])),
        ("an array of another length", pair("redact_snaps", 16, 2, &[0; 8])),
        ("an array of less than nothing", pair("redact_snaps", 16, -1, &[])),
    ] {
        let error = malformed(&[number("offset", 1), pair]);
        let place =
            matches!(error, Some(NvlistError::Malformed { at: 44 } | NvlistError::Short { .. }));
        assert!(place, "{what}: {error:?}");
    }
    let error = malformed(&[pair("object", 20, 1, &[])]);
    assert_eq!(error, Some(NvlistError::UnknownType { at: 12, got: 20 }));
    let mut longer = packed(&[]);
    longer.push(0);
    assert_eq!(nvlist::read(&longer), Err(NvlistError::Longer { count: 1 }));
    for (place, byte) in [(0, 1), (1, 0)] {
        let mut other = packed(&[]);
        other[place] = byte;
        assert!(matches!(nvlist::read(&other), Err(NvlistError::OtherEncoding { .. })));
    }
}

#[test]
fn a_token_that_is_cut_anywhere_is_no_token() {
    for whole in [RAW_AND_INCREMENTAL, FULL, &example().token()] {
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut} bytes of {whole}");
        }
    }
    let list = packed(&example().pairs());
    for cut in 0..list.len() {
        assert!(read(&envelope(&list[..cut])).is_err(), "{cut} bytes of the list");
    }
}

#[test]
fn a_token_with_a_changed_byte_is_no_token() {
    for whole in [RAW_AND_INCREMENTAL, FULL, &example().token()] {
        for place in 0..whole.len() {
            for bit in 0..7 {
                let mut bytes = whole.as_bytes().to_vec();
                bytes[place] ^= 1 << bit;
                let text = String::from_utf8(bytes).unwrap();
                assert!(read(&text).is_err(), "bit {bit} of byte {place} of {whole}");
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        from in any::<Option<u64>>(), to in any::<u64>(), bytes in any::<u64>(),
        name in "[a-z][a-z0-9/]{0,3}[a-z]( [a-z]{1,90})?@[a-z:. ]{1,90}",
        raw in any::<bool>(),
    ) {
        prop_assume!(!name.contains("//") && !name.ends_with("@.") && !name.ends_with("@.."));
        let mut example = Example { bytes, ..Example::of(from, to, &name) };
        if raw { example = example.with("rawok") }
        let token = read(&example.token()).unwrap();
        prop_assert_eq!((token.from, token.to), (from.map(Guid), Guid(to)));
        prop_assert_eq!((token.bytes, token.flags.raw), (Bytes(bytes), raw));
        prop_assert_eq!(format!("{}@{}", token.to_dataset, token.to_snapshot), name);
        prop_assert_eq!(token.to_string(), example.token());
    }

    #[test]
    fn no_text_is_too_strange_to_be_refused(
        text in "(1-)?[0-9a-f]{0,12}-?[0-9a-f]{0,4}-?.{0,200}",
    ) {
        let _ = read(&text);
    }

    #[test]
    fn no_list_is_too_strange_to_be_refused(
        mut pairs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        pairs.extend(example().pairs());
        let mut list = packed(&pairs);
        for (place, byte) in changes {
            let place = place.index(list.len());
            list[place] = byte;
        }
        let _ = read(&envelope(&list));
    }
}
