"""A job over a folder of images: shards, rows, the output folder, run.json, engines, deliveries, retention."""

__all__ = [
    "cautions", "comparison", "deliveries", "engines", "folder_run", "options", "output_folder", "output_names",
    "results_files", "retention", "rows", "run_json", "schema",
]  # fmt: skip
