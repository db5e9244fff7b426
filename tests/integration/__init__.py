"""All of it with real servers, as docker-compose.yml has them: PostgreSQL, objects, MLflow, Prefect and a worker."""
