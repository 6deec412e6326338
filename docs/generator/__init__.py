"""The documentation site: pages that are written, pages that are made from the classes, pictures of the library's runs.

``python -m docs.generator`` builds it into ``build/docs/site``, offline, and fails for any warning or dead link.
"""
