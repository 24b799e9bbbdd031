# shellcheck shell=bash
# The file systems that are shared in the conformance run, each made for this run. They are mounted in the run's own
# mount namespace, so they and their loop devices end with it; the images lie in $IMAGES.

# What a loop-backed source can hold; the image is sparse.
SOURCE_SIZE=4G

# make_source NAME DIRECTORY: mounts the file system NAME at DIRECTORY.
make_source() {
    mkdir -p "$2" && "source_$1" "$2" || return 1
    # pjdfstest becomes other users, who must get this far.
    chmod 0755 "$2"
}

drop_source() {
    umount "$2" || umount -l "$2"
    if [ "$1" = overlayfs ]; then umount "$2.layers"; fi
    rm -f "$IMAGES"/*.img
}

image() {
    local file="$IMAGES/$1.img"
    truncate -s "$SOURCE_SIZE" "$file" && "mkfs.$1" -q "$file" && mount -o loop "$file" "$2"
}

source_ext4() { image ext4 "$1"; }

source_xfs() { image xfs "$1"; }

source_tmpfs() { mount -t tmpfs -o "size=$SOURCE_SIZE" tmpfs "$1"; }

# The layers are on a file system of their own: the machine's root may be an overlay, on which none can stand.
source_overlayfs() {
    local layers=$1.layers
    mkdir -p "$layers" && image ext4 "$layers" && mkdir -p "$layers"/{lower/merged,upper/merged,work} &&
        echo below >"$layers/lower/merged/file" &&
        mount -t overlay -o "lowerdir=$layers/lower,upperdir=$layers/upper,workdir=$layers/work" overlay "$1"
}
