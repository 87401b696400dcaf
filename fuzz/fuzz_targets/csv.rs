#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tinyres_fuzz::csv(data);
});
