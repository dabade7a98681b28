"""What requests, answers and messages look like: one example a model, shown in the OpenAPI document."""

from typing import Any

STAMP = "2025-10-17T10:45:30Z"
_CREATED = "2025-10-17T10:40:00Z"
_STARTED = "2025-10-17T10:42:00Z"
_COMPLETED = "2025-10-17T11:10:00Z"
_UPLOAD = "upl_abc123def456"
_FILE = "file_xyz789abc123"
_JOB = "job_mno345pqr678"
_ETAG = "a1b2c3d4e5f6"
_CHUNK = 5242880
_MODEL = "3d_fullres"
_TYPE = "application/octet-stream"

_PROGRESS = {
    "current_step": 3,
    "total_steps": 5,
    "percentage": 60,
    "message": "Processing tile 45/75",
    "eta_seconds": 450,
}
_ARTIFACT = {
    "name": "segmentation.mrc",
    "size": 157286400,
    "content_type": _TYPE,
    "url": f"/v1/files/{_JOB}/segmentation.mrc?token=9f2c41&expires=1697550000",
    "created_at": _COMPLETED,
}
_PARAMS = {"folds": "all", "step_size": 0.5, "disable_tta": False, "save_probabilities": False}
_PREVIEW = {"enabled": True, "interval_seconds": 5, "downsample_factor": 4}
_VOLUME = {
    "filename": "volume.mrc",
    "shape": [512, 512, 300],
    "voxel_size": [1.0, 1.0, 1.5],
    "dtype": "float32",
    "min_intensity": -150.5,
    "max_intensity": 890.2,
    "mean_intensity": 3.25,
    "std_intensity": 41.75,
    "warnings": [],
}

RATE_LIMITED: dict[str, Any] = {
    "error": {
        "code": "RATE_LIMIT_EXCEEDED",
        "message": "Rate limit exceeded: 60 requests per minute.",
        "hint": "Please wait before making more requests",
        "retryable": True,
        "details": {"limit": 60, "window_seconds": 60, "retry_after_seconds": 15},
    }
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "Health": {"status": "healthy", "timestamp": "2025-10-17T10:30:00Z", "uptime_seconds": 3600},
    "Alive": {"status": "alive"},
    "Ready": {"status": "ready", "degraded": {}},
    "ServerInfo": {
        "version": "1.0.0",
        "nnunet_version": "2.1.0",
        "cuda_available": True,
        "cuda_version": "12.1",
        "gpu_count": 1,
        "gpu_info": [
            {
                "id": 0,
                "name": "NVIDIA A6000",
                "memory_total": 51539607552,
                "memory_free": 48234123264,
                "compute_capability": "8.6",
            }
        ],
        "max_upload_size": 10737418240,
        "supported_formats": ["mrc", "nifti"],
        "available_models": ["3d_fullres", "3d_lowres"],
    },
    "InitUpload": {
        "filename": "volume.mrc",
        "total_size": 5368709120,
        "chunk_size": _CHUNK,
        "content_type": _TYPE,
        "metadata": {"acquisition_date": "2025-01-15", "microscope": "Titan Krios"},
    },
    "UploadCreated": {
        "upload_id": _UPLOAD,
        "chunk_urls": [f"/v1/uploads/{_UPLOAD}/part/0", f"/v1/uploads/{_UPLOAD}/part/1"],
        "expires_at": "2025-10-17T12:30:00Z",
    },
    "PartReceived": {"upload_id": _UPLOAD, "part_number": 0, "received_bytes": _CHUNK, "etag": _ETAG},
    "CompleteUpload": {
        "parts": [{"part_number": 0, "etag": _ETAG}, {"part_number": 1, "etag": "b2c3d4e5f6a7"}],
    },
    "UploadDetails": {
        "upload_id": _UPLOAD,
        "filename": "volume.mrc",
        "total_size": 2 * _CHUNK,
        "chunk_size": _CHUNK,
        "content_type": _TYPE,
        "status": "active",
        "created_at": "2025-10-17T10:30:00Z",
        "expires_at": "2025-10-17T12:30:00Z",
        "stage": "receiving",
        "parts": [{"part_number": 0, "size": _CHUNK, "etag": _ETAG}],
        "file_id": None,
        "error": None,
    },
    "FileCreated": {
        "file_id": _FILE,
        "filename": "volume.mrc",
        "size": 5368709120,
        "content_type": _TYPE,
        "checksum": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "metadata": _VOLUME,
        "created_at": "2025-10-17T10:35:00Z",
    },
    "CreateJob": {"file_id": _FILE, "model": _MODEL, "params": _PARAMS, "preview_config": _PREVIEW},
    "JobCreated": {
        "job_id": _JOB,
        "status": "queued",
        "file_id": _FILE,
        "model": _MODEL,
        "created_at": _CREATED,
        "queue_position": 2,
        "estimated_duration_seconds": 1800,
    },
    "JobDetails": {
        "job_id": _JOB,
        "status": "running",
        "file_id": _FILE,
        "model": _MODEL,
        "params": _PARAMS,
        "created_at": _CREATED,
        "started_at": _STARTED,
        "updated_at": STAMP,
        "progress": _PROGRESS,
        "artifacts": [],
        "gpu_stats": {"gpu_id": 0, "memory_used": 18432, "memory_total": 49152, "utilization": 95},
    },
    "JobCancelled": {"job_id": _JOB, "status": "cancelled", "message": "Job cancelled successfully"},
    "JobList": {
        "jobs": [{"job_id": _JOB, "status": "completed", "created_at": _CREATED, "completed_at": _COMPLETED}],
        "total": 150,
        "limit": 50,
        "offset": 0,
    },
    "GpuStatusList": {
        "gpus": [
            {
                "id": 0,
                "name": "NVIDIA A6000",
                "memory_used": 18432,
                "memory_total": 49152,
                "memory_free": 30720,
                "utilization": 85,
                "temperature": 72,
                "power_usage": 280,
                "power_limit": 300,
            }
        ],
        "timestamp": "2025-10-17T10:50:00Z",
    },
    "ErrorEnvelope": {
        "error": {
            "code": "VALIDATION_ERROR",
            "message": "chunk_size is 1 bytes.",
            "hint": "Choose a chunk_size from 5242880 to 67108864 bytes.",
            "retryable": False,
            "details": {"field": "chunk_size", "minimum": 5242880, "maximum": 67108864},
        }
    },
    "ProgressMessage": {"type": "progress", "job_id": _JOB, "timestamp": STAMP, "progress": _PROGRESS},
    "PreviewMessage": {
        "type": "preview",
        "job_id": _JOB,
        "timestamp": "2025-10-17T10:45:35Z",
        "preview": {
            "scale": 4,
            "shape": [128, 128, 75],
            "dtype": "uint8",
            "slice_idx": 37,
            "encoding": "base64",
            "data": "iVBORw0KGgoAAAANSUhEUgAA",
        },
    },
    "CompletedMessage": {
        "type": "completed",
        "job_id": _JOB,
        "timestamp": _COMPLETED,
        "artifacts": [_ARTIFACT],
        "statistics": {
            "label_counts": {"1": 123456, "2": 78901},
            "physical_volume_nm3": {"1": 1234567.89, "2": 789012.34},
            "surface_area_nm2": {"1": 234567.89, "2": 123456.78},
        },
    },
    "ErrorMessage": {
        "type": "error",
        "job_id": _JOB,
        "timestamp": "2025-10-17T10:50:00Z",
        "error": {
            "code": "INFERENCE_ERROR",
            "message": "Out of GPU memory during inference",
            "hint": "Try reducing tile size or disabling TTA",
            "retryable": True,
            "details": {},
        },
    },
    "PongMessage": {"type": "pong", "timestamp": "2025-10-17T10:45:40Z"},
}
