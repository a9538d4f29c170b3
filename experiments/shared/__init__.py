"""Problems and measurements that two or more questions use."""
