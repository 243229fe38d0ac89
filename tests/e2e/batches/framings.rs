//! The ways to frame compressed bytes, right and wrong, that a codec's reader may meet.

use std::io::Write;

/// A framing's name and its bytes.
pub type Framed = (&'static str, Vec<u8>);

/// The bytes without the last `count`.
fn cut(bytes: &[u8], count: usize) -> Vec<u8> {
    bytes[..bytes.len() - count].to_vec()
}

fn changed(bytes: &[u8], at: usize, change: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = change(bytes[at]);
    bytes
}

/// Deflated, without a frame.
fn deflated(input: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(input).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// A gzip member with these flags and what belongs to them.
fn gzip_with(flags: u8, extra: &[u8], input: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(input);
    let header = [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3], extra].concat();
    [&header, &deflated(input, 6), &crc.sum().to_le_bytes()[..], &(input.len() as u32).to_le_bytes()].concat()
}

pub fn gzip(input: &[u8]) -> Vec<u8> {
    gzip_with(0, &[], input)
}

fn gzip_header_crc(flags: u8, change: u16) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3]);
    ((crc.sum() as u16) ^ change).to_le_bytes().to_vec()
}

/// `input` is what must come out, `large` the same in more than 8 KiB.
pub fn gzip_framings(input: &[u8], large: &[u8]) -> Vec<Framed> {
    let good = gzip(input);
    let (first, second) = input.split_at(input.len() / 2);
    let trailer = good.len() - 8;
    let stored = |input: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(input);
        let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        [&header[..], &deflated(input, 0), &crc.sum().to_le_bytes(), &(input.len() as u32).to_le_bytes()].concat()
    };
    let mut all = vec![
        ("good", good.clone()),
        ("stored blocks", stored(input)),
        ("not gzip", b"this is certainly not a gzip stream".to_vec()),
        ("empty", Vec::new()),
        ("zlib instead", [&[0x78, 0x9c][..], &deflated(input, 6)].concat()),
        ("cut in the magic", good[..1].to_vec()),
        ("cut in the header", good[..7].to_vec()),
        ("cut after the header", good[..10].to_vec()),
        ("cut in the middle", good[..good.len() / 2].to_vec()),
        ("without its trailer", cut(&good, 8)),
        ("cut in the trailer", cut(&good, 4)),
        ("without its last byte", cut(&good, 1)),
        ("wrong checksum", changed(&good, trailer, |byte| byte ^ 1)),
        ("wrong size", changed(&good, trailer + 4, |byte| byte ^ 1)),
        ("method 7", changed(&good, 2, |_| 7)),
        ("reserved flags", changed(&good, 3, |_| 0xe0)),
        ("text flag", changed(&good, 3, |_| 1)),
        ("extra field", gzip_with(4, &[3, 0, 1, 2, 3], input)),
        ("extra field cut", gzip_with(4, &[0xff, 0xff], input)),
        ("file name", gzip_with(8, b"name\0", input)),
        ("comment", gzip_with(16, b"comment\0", input)),
        ("header checksum", gzip_with(2, &gzip_header_crc(2, 0), input)),
        ("wrong header checksum", gzip_with(2, &gzip_header_crc(2, 1), input)),
        ("wrong first bits", changed(&good, 10, |byte| byte | 6)),
        ("flipped bits", changed(&good, 10 + (trailer - 10) / 2, |byte| byte ^ 0x55)),
        ("short tail", [&good[..], b"tail"].concat()),
        ("tail of zeros", [&good[..], &[0; 30]].concat()),
        ("long tail", [&good[..], b"a tail that is longer than the least member of a gzip stream"].concat()),
        ("two members", [gzip(first), gzip(second)].concat()),
        ("three members", [gzip(first), gzip(second), gzip(b"")].concat()),
        ("an empty member first", [gzip(b""), good.clone()].concat()),
        ("the same again", [&good[..], &good].concat()),
        ("two members, the second cut", [&gzip(first)[..], &cut(&gzip(second), 5)].concat()),
        ("two members, the second wrong", [&gzip(first)[..], &changed(&gzip(second), 12, |byte| byte ^ 0x55)].concat()),
        ("two members, noise between", [&gzip(first)[..], b"noise", &gzip(second)].concat()),
    ];
    // Java's reader takes 8 KiB at a time after the header, and looks for another member by what is left of them.
    for (name, left) in [("member at 26", 26_usize), ("member at 27", 27), ("member at 34", 34), ("member at 0", 0)] {
        // Stored blocks take 5 bytes more than what they hold.
        let (first, second) = large.split_at(8192 - left - 5);
        all.push((name, [stored(first), gzip(second)].concat()));
    }
    all
}

const SNAPPY_MAGIC: &[u8] = b"\x82SNAPPY\0";

fn snappy_header(version: u32, compatible: u32) -> Vec<u8> {
    [SNAPPY_MAGIC, &version.to_be_bytes(), &compatible.to_be_bytes()].concat()
}

fn snappy_raw(input: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(input).expect("it is small")
}

fn snappy_block(input: &[u8]) -> Vec<u8> {
    let raw = snappy_raw(input);
    [&(raw.len() as u32).to_be_bytes()[..], &raw].concat()
}

pub fn snappy(input: &[u8]) -> Vec<u8> {
    [snappy_header(1, 1), input.chunks(32 << 10).flat_map(snappy_block).collect()].concat()
}

pub fn snappy_framings(input: &[u8]) -> Vec<Framed> {
    let good = snappy(input);
    let (first, second) = input.split_at(input.len() / 2);
    let raw = snappy_raw(input);
    let header = snappy_header(1, 1);
    let framed = |block: &[u8]| [&header[..], &(block.len() as u32).to_be_bytes(), block].concat();
    let blocks = [snappy_block(first), snappy_block(second)].concat();
    vec![
        ("good", good.clone()),
        ("one raw block", raw.clone()),
        ("one raw block cut", cut(&raw, 3)),
        ("one raw block with a tail", [&raw[..], b"tail"].concat()),
        ("small blocks", [&header[..], &input.chunks(7).flat_map(snappy_block).collect::<Vec<_>>()].concat()),
        ("not snappy", b"this is certainly not a snappy stream".to_vec()),
        ("empty", Vec::new()),
        ("only a header", header.clone()),
        ("cut in the header", header[..11].to_vec()),
        ("cut in the magic", header[..5].to_vec()),
        ("version 0", [snappy_header(0, 0), snappy_block(input)].concat()),
        ("version 2", [snappy_header(2, 1), snappy_block(input)].concat()),
        ("version 2, compatible with 2", [snappy_header(2, 2), snappy_block(input)].concat()),
        ("version -1", [snappy_header(u32::MAX, u32::MAX), snappy_block(input)].concat()),
        ("cut in a length", [&good[..], &[0, 0]].concat()),
        ("cut in a block", cut(&good, 3)),
        ("without the second block", [&header[..], &snappy_block(first)].concat()),
        ("the second block cut", cut(&[&header[..], &blocks].concat(), 3)),
        ("two streams", [snappy(first), snappy(second)].concat()),
        ("two headers", [&header[..], &good].concat()),
        ("the same again", [&good[..], &good].concat()),
        ("a tail", [&good[..], b"tail"].concat()),
        ("a short tail", [&good[..], b"t"].concat()),
        ("a tail of zeros", [&good[..], &[0; 8]].concat()),
        (
            "an empty block between",
            [&header[..], &snappy_block(first), &snappy_block(b""), &snappy_block(second)].concat(),
        ),
        ("a block without bytes between", [&header[..], &snappy_block(first), &[0; 4], &snappy_block(second)].concat()),
        ("a block of negative length", [&header[..], &[0xff; 4], &snappy_block(input)].concat()),
        ("a block of great length", [&header[..], &[0x7f, 0xff, 0xff, 0xff], &snappy_block(input)].concat()),
        ("a block that claims more", framed(&changed(&raw, 0, |byte| byte ^ 1))),
        ("a block that claims 2 GiB", framed(&[&[0xff, 0xff, 0xff, 0xff, 0x07][..], b"\x00a"].concat())),
        ("a block that claims 100 MB", framed(&[&[0x80, 0xc2, 0xd7, 0x2f][..], b"\x00a"].concat())),
        ("a copy from before the start", framed(&[&[8][..], &[0x0d, 200]].concat())),
        ("noise in a block", framed(b"\x20this is no block of snappy")),
        ("snappy's own framing", {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(input).expect("memory takes it");
            encoder.into_inner().expect("memory takes it")
        }),
    ]
}

const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const LZ4_INDEPENDENT: u8 = 0x60;
const LZ4_BLOCK_CHECKSUM: u8 = 0x10;
const LZ4_CONTENT_SIZE: u8 = 0x08;
const LZ4_CONTENT_CHECKSUM: u8 = 0x04;
const LZ4_64_KB: u8 = 0x40;

fn xxh32(bytes: &[u8]) -> u32 {
    twox_hash::XxHash32::oneshot(0, bytes)
}

/// Magic, flags, block descriptor, more of the descriptor, and its checksum.
fn lz4_header(flags: u8, block: u8, more: &[u8]) -> Vec<u8> {
    let descriptor = [&[flags, block], more].concat();
    let checksum = (xxh32(&descriptor) >> 8) as u8;
    [&LZ4_MAGIC[..], &descriptor, &[checksum]].concat()
}

fn lz4_compressed(input: &[u8]) -> Vec<u8> {
    lz4::block::compress(input, None, false).expect("it is small")
}

/// A block, compressed, with its length.
fn lz4_block(input: &[u8]) -> Vec<u8> {
    let block = lz4_compressed(input);
    [&(block.len() as u32).to_le_bytes()[..], &block].concat()
}

fn lz4_stored_block(input: &[u8]) -> Vec<u8> {
    [&(input.len() as u32 | 0x8000_0000).to_le_bytes()[..], input].concat()
}

fn lz4_checked_block(input: &[u8], change: u32) -> Vec<u8> {
    let block = lz4_compressed(input);
    let checksum = xxh32(&block) ^ change;
    [&(block.len() as u32).to_le_bytes()[..], &block, &checksum.to_le_bytes()].concat()
}

fn lz4_blocks(input: &[u8]) -> Vec<u8> {
    [input.chunks(64 << 10).flat_map(lz4_block).collect::<Vec<_>>(), vec![0; 4]].concat()
}

pub fn lz4(input: &[u8]) -> Vec<u8> {
    [lz4_header(LZ4_INDEPENDENT, LZ4_64_KB, &[]), lz4_blocks(input)].concat()
}

pub fn lz4_framings(input: &[u8], noise: &[u8]) -> Vec<Framed> {
    [lz4_frame_headers(input), lz4_frames(input), lz4_block_sequences(input, noise)].concat()
}

fn lz4_frame_headers(input: &[u8]) -> Vec<Framed> {
    let good = lz4(input);
    let blocks = lz4_blocks(input);
    let with = |flags: u8, block: u8| [lz4_header(flags, block, &[]), blocks.clone()].concat();
    let size = (input.len() as u64).to_le_bytes();
    let checksum = xxh32(input);
    let sized =
        |size: &[u8]| [lz4_header(LZ4_INDEPENDENT | LZ4_CONTENT_SIZE, LZ4_64_KB, size), blocks.clone()].concat();
    let checked = |checksum: &[u8]| {
        [lz4_header(LZ4_INDEPENDENT | LZ4_CONTENT_CHECKSUM, LZ4_64_KB, &[]), blocks.clone(), checksum.to_vec()].concat()
    };
    let block_checked = |change| {
        let header = lz4_header(LZ4_INDEPENDENT | LZ4_BLOCK_CHECKSUM, LZ4_64_KB, &[]);
        [header, lz4_checked_block(input, change), vec![0; 4]].concat()
    };
    vec![
        ("good", good.clone()),
        ("blocks of 256 KB", with(LZ4_INDEPENDENT, 0x50)),
        ("blocks of 1 MB", with(LZ4_INDEPENDENT, 0x60)),
        ("blocks of 4 MB", with(LZ4_INDEPENDENT, 0x70)),
        ("blocks of size 3", with(LZ4_INDEPENDENT, 0x30)),
        ("blocks of size 0", with(LZ4_INDEPENDENT, 0)),
        ("reserved bits of the block size", with(LZ4_INDEPENDENT, 0x41)),
        ("the high bit of the block size", with(LZ4_INDEPENDENT, 0xc0)),
        ("dependent blocks", with(0x40, LZ4_64_KB)),
        ("version 0", with(0x20, LZ4_64_KB)),
        ("version 2", with(0xa0, LZ4_64_KB)),
        ("a reserved flag", with(LZ4_INDEPENDENT | 2, LZ4_64_KB)),
        ("a dictionary", [lz4_header(LZ4_INDEPENDENT | 1, LZ4_64_KB, &[1, 2, 3, 4]), blocks.clone()].concat()),
        ("a dictionary flag alone", with(LZ4_INDEPENDENT | 1, LZ4_64_KB)),
        ("wrong header checksum", changed(&good, 6, |byte| byte ^ 1)),
        ("content size", sized(&size)),
        ("wrong content size", sized(&[9, 0, 0, 0, 0, 0, 0, 0])),
        ("content checksum", checked(&checksum.to_le_bytes())),
        ("wrong content checksum", checked(&(checksum ^ 1).to_le_bytes())),
        ("content checksum missing", checked(&[])),
        ("content checksum cut", checked(&[1, 2])),
        ("block checksum", block_checked(0)),
        ("wrong block checksum", block_checked(1)),
        ("block checksum missing", with(LZ4_INDEPENDENT | LZ4_BLOCK_CHECKSUM, LZ4_64_KB)),
    ]
}

/// Whole frames, several, and parts of one.
fn lz4_frames(input: &[u8]) -> Vec<Framed> {
    let good = lz4(input);
    let (first, second) = input.split_at(input.len() / 2);
    let usual = lz4_header(LZ4_INDEPENDENT, LZ4_64_KB, &[]);
    let legacy = [&0x184C_2102_u32.to_le_bytes()[..], &lz4_block(input)].concat();
    let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &[4, 0, 0, 0], b"skip"].concat();
    vec![
        ("not lz4", b"this is certainly not an lz4 stream".to_vec()),
        ("empty", Vec::new()),
        ("legacy frame", legacy),
        ("skippable frame first", [&skippable[..], &good].concat()),
        ("skippable frame last", [&good[..], &skippable].concat()),
        ("two frames", [lz4(first), lz4(second)].concat()),
        ("the same again", [&good[..], &good].concat()),
        ("a tail", [&good[..], b"tail"].concat()),
        ("a long tail", [&good[..], &[0; 40]].concat()),
        ("only a header", usual.clone()),
        ("a frame without blocks", [&usual[..], &[0; 4]].concat()),
        ("cut in the magic", good[..3].to_vec()),
        ("cut in the header", good[..5].to_vec()),
        ("without its end", cut(&good, 4)),
        ("its end cut", cut(&good, 2)),
        ("cut in a block", cut(&good, 9)),
    ]
}

fn lz4_block_sequences(input: &[u8], noise: &[u8]) -> Vec<Framed> {
    let good = lz4(input);
    let (first, second) = input.split_at(input.len() / 2);
    let usual = lz4_header(LZ4_INDEPENDENT, LZ4_64_KB, &[]);
    let in_blocks = |blocks: &[&[u8]]| [&usual[..], &blocks.concat()].concat();
    let claims = |length: u32, block: &[u8]| in_blocks(&[&length.to_le_bytes(), block, &[0; 4]]);
    vec![
        ("small blocks", in_blocks(&[&input.chunks(9).flat_map(lz4_block).collect::<Vec<_>>(), &[0; 4]])),
        ("stored blocks", in_blocks(&[&lz4_stored_block(first), &lz4_stored_block(second), &[0; 4]])),
        ("a stored block cut", in_blocks(&[&cut(&lz4_stored_block(input), 5)])),
        (
            "an empty stored block",
            in_blocks(&[&lz4_stored_block(first), &lz4_stored_block(b""), &lz4_block(second), &[0; 4]]),
        ),
        ("an empty block", in_blocks(&[&lz4_block(first), &lz4_block(b""), &lz4_block(second), &[0; 4]])),
        ("noise in a block", claims(26, b"this is no block of lz4 at")),
        ("a block longer than the rest", claims(1000, b"short")),
        ("a block longer than allowed", claims(70_000, &noise[..70_000])),
        ("a stored block longer than allowed", in_blocks(&[&lz4_stored_block(&noise[..70_000]), &[0; 4]])),
        ("a block of negative length", claims(0xffff_ffff, b"short")),
        ("a block that unpacks to more than allowed", in_blocks(&[&lz4_block(&[0; 70_000]), &[0; 4]])),
        ("flipped bits in a block", changed(&good, good.len() / 2, |byte| byte ^ 0x55)),
    ]
}

fn zstd_with(input: &[u8], set: impl Fn(&mut zstd::stream::write::Encoder<'_, Vec<u8>>)) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("level 3 is known");
    set(&mut encoder);
    encoder.write_all(input).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

pub fn zstd(input: &[u8]) -> Vec<u8> {
    zstd_with(input, |_| ())
}

/// A frame of one raw block whose header asks for a window of 2 to the power of `log` bytes.
fn zstd_window(log: u8, input: &[u8]) -> Vec<u8> {
    let block = ((input.len() as u32) << 3 | 1).to_le_bytes();
    [&0xFD2F_B528_u32.to_le_bytes()[..], &[0, (log - 10) << 3], &block[..3], input].concat()
}

pub fn zstd_framings(input: &[u8]) -> Vec<Framed> {
    let good = zstd(input);
    let (first, second) = input.split_at(input.len() / 2);
    let checked = zstd_with(input, |encoder| encoder.include_checksum(true).expect("it can be set"));
    let sized = zstd_with(input, |encoder| {
        encoder.set_pledged_src_size(Some(input.len() as u64)).expect("it can be set");
        encoder.include_contentsize(true).expect("it can be set");
    });
    let last = checked.len() - 1;
    let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &[4, 0, 0, 0], b"skip"].concat();
    let magic = 0xFD2F_B528_u32.to_le_bytes();
    let run = |length: u32, tail: &[u8]| {
        let block = (length << 3 | 2 | u32::from(tail.is_empty())).to_le_bytes();
        [&magic[..], &[0, 0x58], &block[..3], &[0], tail].concat()
    };
    vec![
        ("good", good.clone()),
        ("with checksum", checked.clone()),
        ("wrong checksum", changed(&checked, last, |byte| byte ^ 1)),
        ("checksum cut", cut(&checked, 2)),
        ("with content size", sized.clone()),
        ("wrong content size", changed(&sized, 5, |byte| byte ^ 1)),
        ("not zstd", b"this is certainly not a zstd stream".to_vec()),
        ("empty", Vec::new()),
        ("an empty frame", zstd(b"")),
        ("an empty frame first", [zstd(b""), good.clone()].concat()),
        ("cut in the magic", good[..3].to_vec()),
        ("cut in the header", good[..5].to_vec()),
        ("cut in the middle", good[..good.len() / 2].to_vec()),
        ("without its last byte", cut(&good, 1)),
        ("two frames", [zstd(first), zstd(second)].concat()),
        ("the second frame cut", cut(&[zstd(first), zstd(second)].concat(), 2)),
        ("the same again", [&good[..], &good].concat()),
        ("a tail", [&good[..], b"tail"].concat()),
        ("a short tail", [&good[..], b"t"].concat()),
        ("a tail of zeros", [&good[..], &[0; 20]].concat()),
        ("skippable frame first", [&skippable[..], &good].concat()),
        ("skippable frame last", [&good[..], &skippable].concat()),
        ("skippable frame last, cut", [&good[..], &cut(&skippable, 2)].concat()),
        ("only a skippable frame", skippable.clone()),
        ("a window of 1 KB", zstd_window(10, input)),
        ("a window of 8 MB", zstd_window(23, input)),
        ("a window of 128 MB", zstd_window(27, input)),
        ("a window of 256 MB", zstd_window(28, input)),
        ("a window of 2 GB", zstd_window(31, input)),
        ("a block of the reserved kind", changed(&zstd_window(20, input), 6, |byte| byte | 6)),
        ("no last block", changed(&zstd_window(20, input), 6, |byte| byte & !1)),
        ("a reserved bit", changed(&good, 4, |byte| byte | 8)),
        ("a dictionary", [&magic[..], &[1, 0x58, 9, 1, 0, 0]].concat()),
        ("a run of bytes", run(100, &[])),
        ("a run longer than a block", run(200_000, &[])),
        ("old magic", changed(&good, 0, |_| 0x27)),
        ("flipped bits", changed(&good, good.len() / 2, |byte| byte ^ 0x55)),
        ("high level", zstd::encode_all(input, 19).expect("memory takes it")),
    ]
}
