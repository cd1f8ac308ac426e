#!/bin/sh
# Builds the real pict-rs in the versions that people run, with the programs that it calls, for `make real`:
#
#   scripts/real.sh              what is missing of the versions below
#   scripts/real.sh 0.5.26 ...   these versions
#
# Needs root and a Rust toolchain (cargo). Everything lies in .work/real: a build is some minutes for each version, once. pict-rs is fetched
# by its package name; ImageMagick 7, FFmpeg and ExifTool come from a Debian 13 in a folder of its own, since Debian 12 has no `magick`.
set -eu

cd "$(dirname "$0")/.."
. scripts/environment.sh

VERSIONS="0.5.16 0.5.25 0.6.0-rc.6" # a newer one is tried by writing it here
PLACE=$PWD/.work/real
[ $# -eq 0 ] || VERSIONS=$*
mkdir -p "$PLACE/bin"

# newer VERSION: what its lock file pins and does not compile any more, as CRATE@VERSION
newer() {
    case $1 in
    0.5.16) echo metrics@0.23.1 ;;
    esac
}

# build VERSION: pict-rs of this version in .work/real/pict-rs-VERSION/bin
build() {
    [ ! -x "$PLACE/pict-rs-$1/bin/pict-rs" ] || return 0
    say "Building pict-rs $1 (some minutes, once)"
    export CARGO_HOME="$PLACE/cargo" CARGO_TARGET_DIR="$PLACE/target"
    mkdir -p "$PLACE/fetch/src"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\npict-rs = "=%s"\n' "$1" >"$PLACE/fetch/Cargo.toml"
    : >"$PLACE/fetch/src/lib.rs"
    rm -f "$PLACE/fetch/Cargo.lock"
    (cd "$PLACE/fetch" && cargo fetch --quiet) >&2 || stop "pict-rs $1 could not be fetched"
    rm -rf "$PLACE/source-$1"
    cp -r "$(echo "$CARGO_HOME"/registry/src/*/pict-rs-"$1")" "$PLACE/source-$1"
    for pin in $(newer "$1"); do
        (cd "$PLACE/source-$1" && cargo update --quiet --package "${pin%@*}" --precise "${pin#*@}") >&2 || stop "$pin does not fit pict-rs $1"
    done
    (cd "$PLACE/source-$1" && cargo install --quiet --locked --debug --path . --root "$PLACE/pict-rs-$1") >"$PLACE/build-$1.log" 2>&1 ||
        { tail -n 40 "$PLACE/build-$1.log" >&2 && stop "pict-rs $1 could not be built (see $PLACE/build-$1.log)"; }
}

# tools: ImageMagick 7, FFmpeg and ExifTool in a folder, and a word for each in .work/real/bin
tools() {
    if [ ! -e "$PLACE/tools.done" ]; then
        command -v debootstrap >/dev/null || debian debootstrap
        say "Making a folder with Debian 13's ImageMagick, FFmpeg and ExifTool (some minutes, once)"
        rm -rf "$PLACE/tools"
        debootstrap --variant=minbase --include=imagemagick,ffmpeg,libimage-exiftool-perl trixie "$PLACE/tools" >"$PLACE/tools.log" 2>&1 ||
            { tail -n 20 "$PLACE/tools.log" >&2 && stop "Debian 13's programs could not be had (see $PLACE/tools.log)"; }
        : >"$PLACE/tools.done"
    fi
    machine=$(uname -m)
    for program in magick:magick-im7.q16 ffmpeg:ffmpeg ffprobe:ffprobe perl:perl; do
        cat >"$PLACE/bin/tool-${program%:*}" <<END
#!/bin/sh
T=\$(dirname "\$0")/../tools
L=\$T/usr/lib/$machine-linux-gnu
# the modules, plugins and settings of that folder's ImageMagick; pict-rs hands it a policy of its own in front
export LIBHEIF_PLUGIN_PATH="\$L/libheif/plugins"
export MAGICK_CODER_MODULE_PATH=\$(echo "\$L"/ImageMagick-7*/modules-Q16/coders)
export MAGICK_CONFIGURE_PATH="\${MAGICK_CONFIGURE_PATH:-}\${MAGICK_CONFIGURE_PATH:+:}\$T/etc/ImageMagick-7"
exec "\$(echo "\$T"/usr/lib64/ld-linux-*)" --library-path "\$L:\$L/blas:\$L/lapack:\$L/pulseaudio" "\$T/usr/bin/${program#*:}" "\$@"
END
        chmod +x "$PLACE/bin/tool-${program%:*}"
    done
    for program in magick ffmpeg ffprobe; do ln -sf "tool-$program" "$PLACE/bin/$program"; done
    cat >"$PLACE/bin/exiftool" <<END
#!/bin/sh
T=\$(dirname "\$0")/../tools
export PERL5LIB="\$T/usr/share/perl5:\$(echo "\$T"/usr/share/perl/5.*.*):\$(echo "\$T"/usr/lib/$machine-linux-gnu/perl/5.*.*):\$(echo "\$T"/usr/lib/$machine-linux-gnu/perl-base)"
exec "\$(dirname "\$0")/tool-perl" "\$T/usr/bin/exiftool" "\$@"
END
    chmod +x "$PLACE/bin/exiftool"
    for program in "magick -version" "ffmpeg -version" "ffprobe -version" "exiftool -ver"; do
        # shellcheck disable=SC2086 # a program and its argument
        PATH="$PLACE/bin:$PATH" "$PLACE/bin/"$program >"$PLACE/tool.log" 2>&1 || { cat "$PLACE/tool.log" >&2 && stop "$program does not work"; }
    done
}

[ -n "$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || debian postgresql
command -v cargo >/dev/null || stop "this needs a Rust toolchain (cargo): Debian 12's is too old for it, rustup has a newer one"
tools
for version in $VERSIONS; do build "$version"; done
