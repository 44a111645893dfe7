
attempt="$job/attempt-$((base + ${SLURM_RESTART_COUNT:-0}))"
told="$attempt/slurm-told$suffix"
mkdir -p "$attempt"
export python job base first attempt
unset SLURM_EXPORT_ENV
if [ "$parts" != 1 ]; then
  # parts may count memory by core, by node or not at all, and srun would take offence; a step gets
  # all that its part has
  for kind in CPU GPU NODE; do
    unset "SLURM_MEM_PER_$kind"
    k=0
    while [ "$k" -lt "$parts" ]; do
      unset "SLURM_MEM_PER_${kind}_HET_GROUP_$k" "SLURM_MEM_PER_${kind}_PACK_GROUP_$k"
      k=$((k + 1))
    done
  done
fi

# Each replica: a shell that notes how its wrapper has left, also when that was killed.
task='
rank=$((first + ${SLURM_PROCID:-0}))
mkdir -p "$attempt/rank-$rank" || exit 78
trap : TERM INT USR1 USR2
"$python" -m understudy.launch.engines.slurm_node task "$job" "$base" "$attempt" "$rank"
code=$?
echo "$code" > "$attempt/rank-$rank/left"
exit "$code"
'

# Signals reach this script alone. They are handed on to the wrappers, which know whom to tell;
# Slurm itself would send USR1 to every process, and most would die of it.
count=0
hand_on() {
  count=$((count + 1))
  set -- "$1" "$$-$count"
  if [ "$parts" = 1 ] && [ "${SLURM_JOB_NUM_NODES:-1}" = 1 ]; then
    "$python" -m understudy.launch.engines.slurm_node signal "$attempt" "$@"
  else
    overlap=
    srun --help 2>/dev/null | grep -q -e --overlap && overlap=--overlap
    # shellcheck disable=SC2086
    srun --mpi=none --input=none --mem=0 $overlap $whole \
      "$python" -m understudy.launch.engines.slurm_node signal "$attempt" "$@"
  fi
}
asked() {
  why=preempt
  case $(scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null) in
    *PreemptTime=[0-9]*) ;;
    *PreemptTime=*) why=limit ;;
  esac
  echo "$1 $why" >> "$told"
  hand_on "$1"
}
ended() {
  [ -e "$attempt/stop.json" ] || echo "TERM outside" >> "$told"
  hand_on TERM
}
trap 'asked USR1' USR1
trap 'asked USR2' USR2
trap ended TERM

if [ "$wire" = 1 ]; then
  "$python" -m understudy.launch.engines.slurm_node wire "$attempt"
fi
printf '{"id": "%s", "restarts": %s, "time": %s, "host": "%s"}\n' \
  "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" "$(date +%s)" "$(uname -n)" > "$attempt/.begun$suffix"
mv "$attempt/.begun$suffix" "$attempt/slurm-begun$suffix.json"

start &
step=$!
while :; do
  wait "$step"
  code=$?
  [ "$code" -le 128 ] && break
  kill -0 "$step" 2>/dev/null || { wait "$step"; code=$?; break; }
done

# What ends while Slurm calls it running is not queued again. So when a preemption has been announced
# and the work is not done, wait until Slurm has made up its mind.
linger() {
  left=$1
  while [ "$left" -gt 0 ] && [ ! -e "$attempt/stop.json" ]; do
    case $(scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null) in
      *JobState=RUNNING* | "") ;;
      *) return ;;
    esac
    sleep 2 &
    wait $!
    left=$((left - 2))
  done
}
if grep -q outside "$told" 2>/dev/null; then
  linger 300
elif [ "$code" != 0 ] && grep -q preempt "$told" 2>/dev/null; then
  linger 3600
fi
exit "$code"
