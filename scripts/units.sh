#!/bin/sh
# Boots a real systemd with the units of deploy/systemd, and proves that they work inside their sandbox:
#
#   scripts/units.sh
#
# Needs root, the image that scripts/container.sh made (it is copied, with systemd put in), and systemd-nspawn. What it prints while it boots is
# in .work/units.
set -eu

cd "$(dirname "$0")/.."
. scripts/environment.sh

PLACE=$PWD/.work/units
IMAGE=localhost/fediwarden:test
BUILDAH="buildah --storage-driver vfs"
command -v systemd-nspawn >/dev/null || debian systemd-container
$BUILDAH inspect --type image "$IMAGE" >/dev/null 2>&1 || stop "there is no image $IMAGE; scripts/container.sh makes it"
mkdir -p "$PLACE"
set_up run
FEDIWARDEN_HOME=$PWD/.work install_models

say "== a machine of its own"
made=$($BUILDAH from "$IMAGE")
booted=
finish() {
    [ -z "$booted" ] || kill "$booted" 2>/dev/null || true
    wait
    $BUILDAH rm "$made" >/dev/null
}
trap finish EXIT
trap 'exit 1' INT TERM HUP
$BUILDAH config --user root "$made"
$BUILDAH run --isolation chroot --network host "$made" -- sh -c 'apt-get -qq update &&
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install dbus systemd' >"$PLACE/apt.log" 2>&1
root=$($BUILDAH mount "$made")
cp -r deploy/systemd/. "$root/etc/systemd/system/"
cp deploy/container/healthcheck.py "$root/usr/local/lib/"
home=$root/var/lib/fediwarden
mkdir -p "$home" "$root/srv/media/files"
cp -r .work/models/. "$home/models"
"$VENV/bin/python" -c "
import sys; from PIL import Image
Image.effect_noise((640, 480), 40).convert('RGB').save(sys.argv[1])" "$root/srv/media/files/noise.jpg"
chown -R 10001:10001 "$home" "$root/srv/media"
install -d -m 700 -o 10001 -g 10001 "$root/var/backups/fediwarden"

# a unit for one command, in the sandbox of the others
single() {
    printf '[Service]\nType=oneshot\nUser=fediwarden\nEnvironment=FEDIWARDEN_HOME=/var/lib/fediwarden FEDIWARDEN_LOG__FILE=-\nExecStart=/usr/local/bin/fediwarden %s\n%s' \
        "$2" "${3:-}" >"$root/etc/systemd/system/fediwarden-$1.service"
}
for command in "init --profile other" "vault init" "gate --new-secret"; do
    # shellcheck disable=SC2086 # words
    chroot "$root" runuser -u fediwarden -- env FEDIWARDEN_HOME=/var/lib/fediwarden FEDIWARDEN_LOG__FILE=- fediwarden $command >"$PLACE/last" 2>&1
done
printf '\n[stores.media]\nurl = "/srv/media/files"\n' >>"$home/fediwarden.toml"
single doctor doctor
single drill "drill gate"
single picture "drill picture /srv/media/files/drill.png" "ReadWritePaths=/srv/media
"
mkdir "$root/etc/systemd/system/fediwarden-watch.service.d"
printf '[Service]\nWatchdogSec=20\nReadWritePaths=/srv/media\nEnvironment=FEDIWARDEN_WATCH__ACT=allowance FEDIWARDEN_WATCH__METRICS=127.0.0.1:9470\n' \
    >"$root/etc/systemd/system/fediwarden-watch.service.d/own.conf"
rm -f "$root/etc/machine-id"
ln -sf /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service" # there is no network to wait for

# nspawn's own filter does not know Landlock in every version; the units' filter is what is tried here
systemd-nspawn --quiet -D "$root" --boot --register=no --keep-unit --private-network --console=pipe \
    --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self" </dev/null >"$PLACE/boot" 2>&1 &
booted=$!

in_it() {
    inner=$(tr -d ' ' <"/proc/$booted/task/$booted/children") && [ -n "$inner" ] || return 1
    nsenter --mount --uts --ipc --net --pid --cgroup --target "$inner" -- "$@"
}

# prove WORDS COMMAND...: one proof, tried for a minute
prove() {
    say "-- $1"
    words=$1
    shift
    for _ in $(seq 60); do
        if "$@" >"$PLACE/last" 2>&1; then return; fi
        sleep 1
    done
    in_it journalctl --no-pager --lines 60 >&2 || true
    cat "$PLACE/last" >&2
    stop "$words"
}

well() { in_it env HEALTH_URL="http://127.0.0.1:$1/healthz" python3 /usr/local/lib/healthcheck.py; }
of() { in_it systemctl show --property "$2" --value "fediwarden-$1"; }
is() { [ "$(of "$1" "$2")" = "$3" ]; }
said() { in_it journalctl --no-pager --output cat --unit "fediwarden-$1" | grep -q "$2"; }
hidden() { ! [ -e "$root/srv/media/files/drill.png" ] && [ -n "$(find "$root/srv/media/files.quarantine" -type f)" ]; }

say "== proofs"
prove "systemd is there" in_it systemctl start fediwarden-gate.socket fediwarden-gate fediwarden-watch
prove "the gate answers behind its socket" well 8970
prove "the watch tells that it watches" is watch StatusText "watching media"
prove "and is well" well 9470
prove "in the sandbox, every layer of the cage is there" in_it systemctl start fediwarden-doctor
prove "doctor says so" said doctor "every layer is there"
prove "the drill picture is refused, sealed and on record" in_it systemctl start fediwarden-drill
prove "a drill picture is put into the watched folder" in_it systemctl start fediwarden-picture
prove "and hidden by the watch" hidden
prove "a backup is made and read back" in_it systemctl start fediwarden-backup
process=$(of watch MainPID)
prove "the watch reloads" in_it systemctl reload fediwarden-watch
printf 'nonsense = 1\n' >>"$home/fediwarden.toml"
prove "a wrong configuration is read" in_it systemctl reload fediwarden-watch
prove "and refused" said watch "the old one stays in force"
sed -i '$d' "$home/fediwarden.toml"
prove "by the same process" is watch MainPID "$process"
prove "the gate starts anew" in_it systemctl reload fediwarden-gate
in_it systemctl restart fediwarden-gate
prove "who asks while it restarts is answered" well 8970
in_it sh -c "kill -STOP $process"
prove "a watch that hangs is started again" is watch NRestarts 1
prove "and watches" is watch StatusText "watching media"
for service in watch gate; do
    prove "the $service is stopped" in_it systemctl stop "fediwarden-$service"
    prove "as it should" is "$service" Result success
done
say "the units work"
