#!/bin/sh
# Stands in for the runner; the model's name says how it fares.
name=$CRYOMAMBA_JOB_NAME

report() { # percentage
  cat > /scratch/self.json <<END
{"apiVersion": "cryomamba.io/v1alpha1", "kind": "SegmentationJob",
 "metadata": {"name": "$name", "namespace": "$CRYOMAMBA_JOB_NAMESPACE"}}
END
  progress="{\"status\": {\"progress\": {\"sequence\": $1, \"currentStep\": 3, \"totalSteps\": 5, \"percentage\": $1,
    \"message\": \"Inferring\", \"updatedAt\": \"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"}}}"
  # Refused until the operator has written status.podUid.
  until kubectl patch --filename /scratch/self.json --subresource=status --type=merge --patch "$progress"; do
    sleep 0.2
  done
}

case $CRYOMAMBA_JOB_SPEC in
  *'"model":"succeed"'*) report 40 && exit 0 ;;
  *'"model":"fail"'*)
    printf '{"code":"NOT_FOUND","message":"There is no such file.","hint":"Upload it.","retryable":false,"details":{}}' \
      > /dev/termination-log
    exit 70 ;;
  *'"model":"exit-1"'*) echo "KeyError: plans" && exit 1 ;;
  *'"model":"eat-memory"'*) exec tail /dev/zero ;; # one line without an end, kept in memory
  *'"model":"eat-memory-in-a-child"'*) tail /dev/zero || exit 1 ;;
  *'"model":"fill-scratch"'*) dd if=/dev/zero of=/scratch/file bs=1M count=64 && exec sleep 600 ;;
  *'"model":"write-to-root"'*) echo > /file || exit 1 ;;
  *)
    trap 'exit 75' TERM
    while true; do sleep 0.1; done ;;
esac
