#!/usr/bin/env bash
# From a folder of pairs to a finished model folder, with everything that belongs to it: tokenizer, decoder, transformer, export,
# evaluation, model card and picture. Every stage goes on where it was interrupted; run the same command again.
#
#   runs/earthmapper-mini.sh                                   # the bundled model, anew, into runs/earthmapper-mini/model
#   runs/earthmapper-mini.sh --dry-run                         # checks everything and says how long it will take
#   runs/earthmapper-mini.sh --data DIR --device vulkan        # other pairs, another device
#
# Options:
#   --configs DIR     folder with tokenizer.toml, maybe decoder.toml, transformer.toml, generation.json,
#                     data.md and maybe palette.json [configs/earthmapper-mini]
#   --data DIR        folder of the pairs, instead of the one in the configurations
#   --out DIR         where runs and results go [runs/NAME of the folder of configurations]
#   --device NAME     cpu, cuda, vulkan, metal or auto [cpu]
#   --features LIST   features to build the program with, such as vulkan
#   --storage KIND    f16, bf16 or f32 weights in the model folder [f16]
#   --dry-run         trains three steps of each stage in a folder that is removed, and prints the hours expected
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

configs=configs/earthmapper-mini data= out= device=cpu features= storage=f16 dry_run=
while [ $# -gt 0 ]; do
    case $1 in
    --configs | --data | --out | --device | --features | --storage)
        [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
        declare "${1#--}=$2"
        shift 2
        ;;
    --dry-run) dry_run=yes; shift ;;
    *) echo "unknown option $1; the options are at the top of $0" >&2; exit 2 ;;
    esac
done
out=${out:-runs/$(basename "$configs")}

step() { printf '\n==> %s\n' "$*"; "$@"; }

step cargo build --release --bin earthmapper ${features:+--features "$features"}
program=${CARGO_TARGET_DIR:-target}/release/earthmapper

# The value of a key of a configuration's outermost table, or of the table named in front of it: "data.folder".
value() { awk -v want="$2" -F' *= *' '
    /^\[/ { table = substr($0, 2, index($0, "]") - 2) "."; next }
    table $1 == want { sub(/^[^=]*= */, ""); sub(/ *#.*$/, ""); gsub(/"/, ""); print; exit }' "$1"; }

# Copies of the configurations, with this folder of pairs and these run folders.
mkdir -p "$out"
stages=(tokenizer transformer) last_tokenizer=tokenizer
if [ -f "$configs/decoder.toml" ]; then stages=(tokenizer decoder transformer) last_tokenizer=decoder; fi
for name in "${stages[@]}"; do
    sed ${data:+-e "s|^folder = .*|folder = \"$data\"|" -e "s|^manifest = .*|manifest = \"$data\"|"} -e "s|^from = .*|from = \"$out/tokenizer\"|" \
        -e "s|^tokenizer = .*|tokenizer = \"$out/$last_tokenizer\"|" "$configs/$name.toml" >"$out/$name.toml"
done
# What the program calls the training of a stage.
kind() { if [ "$1" = transformer ]; then echo transformer; else echo tokenizer; fi; }
pairs() { echo "$(value "$configs/transformer.toml" "$1.first")..$(value "$configs/transformer.toml" "$1.last")"; }
if [ "$(value "$configs/transformer.toml" data.layout)" = manifest ]; then
    folder=${data:-$(value "$configs/transformer.toml" data.manifest)}
    measured=(--split validation --training "$folder")
else
    folder=${data:-$(value "$configs/transformer.toml" data.folder)}
    measured=(--pairs "$(pairs validation)" --training "$folder" --training-pairs "$(pairs training)")
fi
if [ -f "$configs/palette.json" ]; then measured+=(--palette "$configs/palette.json"); fi

# Goes on with a run that has begun.
train() {
    local name=$1 run=$2
    shift 2
    local resume=
    if [ -e "$run" ]; then resume=--resume; fi
    step "$program" train "$(kind "$name")" -c "$out/$name.toml" --run "$run" --device "$device" $resume "$@"
}

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

if [ -n "$dry_run" ]; then
    trial=$(mktemp -d "$out/trial.XXXX")
    trap 'rm -rf "$trial"' EXIT
    report=
    for name in "${stages[@]}"; do
        # One step with all that comes before it, then two more, which tell what a step takes.
        for count in 1 3; do
            sed -e "s|^steps = .*|steps = $count|" -e "s|^from = .*|from = \"$trial/tokenizer\"|" \
                -e "s|^tokenizer = .*|tokenizer = \"$trial/$last_tokenizer\"|" -e "s|^warm_up = .*|warm_up = 1|" "$out/$name.toml" >"$trial/$name.toml"
            resume=
            if [ $count = 3 ]; then resume=--resume; fi
            begin=$(milliseconds)
            step "$program" train "$(kind "$name")" -c "$trial/$name.toml" --run "$trial/$name" --device "$device" $resume
            declare "took_$count=$(($(milliseconds) - begin))"
        done
        # Each variant of the augmented pairs is encoded once, at most as many as there are epochs.
        variants=1
        if [ $name = transformer ]; then
            variants=$(awk -v variants="$(value "$out/$name.toml" variants)" -v steps="$(value "$out/$name.toml" steps)" \
                -v size="$(value "$out/$name.toml" batch_size)" -v times="$(value "$out/$name.toml" accumulate)" \
                -v first="$(value "$out/$name.toml" training.first)" -v last="$(value "$out/$name.toml" training.last)" 'BEGIN {
                    epochs = steps * size * (times ? times : 1) / (last - first + 1)
                    print (epochs < variants ? int(epochs) + 1 : variants) }')
        fi
        report+=$(awk -v name="$name" -v steps="$(value "$out/$name.toml" steps)" -v one="$took_1" -v two="$took_3" \
            -v variants="$variants" 'BEGIN {
                each = two / 2 / 1000; first = one / 1000 - each
                if (first < 0) first = 0
                printf "%s: %d steps of %.2f s, and %d times %.0f s before: about %.1f hours",
                    name, steps, each, variants, first, (variants * first + steps * each) / 3600
            }')$'\n'
    done
    printf '\n%s' "$report"
    exit
fi

for name in "${stages[@]}"; do train "$name" "$out/$name"; done
model=$out/model
if [ ! -e "$model" ]; then
    step "$program" model export "$model" --from-run "$out/transformer" --storage "$storage" \
        --generation "$configs/generation.json"
fi
# Tables, sheets and the model card.
card=()
if [ -f "$configs/data.md" ]; then card=(--data-text "$configs/data.md"); fi
step "$program" evaluate --model "$model" --device "$device" --data "$folder" "${measured[@]}" \
    --seed 0 --out "$out/evaluation" --overwrite \
    --from-run "$out/transformer" "${card[@]}"
step cp "$out/evaluation/README.md" "$model/README.md"
step "$program" model info --model "$model"
# Map → photograph → map of the invented town.
step "$program" translate examples/map.png "$out/satellite.png" --to satellite --model "$model" --seed 3 --overwrite
step "$program" translate "$out/satellite.png" "$out/map.png" --to map --model "$model" --overwrite
step cargo run --release --example side_by_side -- "$out/translation.png" examples/map.png "$out/satellite.png" "$out/map.png"
printf '\nthe model is in %s, its tables in %s, its picture is %s\n' "$model" "$out/evaluation" "$out/translation.png"
