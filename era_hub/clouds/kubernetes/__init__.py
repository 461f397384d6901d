"""Jobs on Kubernetes: `era_hub.clouds.kubernetes.cloud.KubernetesCloud`.

Nothing is imported here, so that the pure parts can be used without a client.
"""
