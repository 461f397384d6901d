"""Clouds: what runs the jobs. The interface is `era_hub.clouds.base.Cloud`.

Nothing is imported here, so that a part can be used without the others'
requirements.
"""
