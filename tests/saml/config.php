<?php
// A real identity provider (SimpleSAMLphp) of one organization, told by a file of settings, at an address of this machine.
$told = json_decode(file_get_contents(getenv('SAML_SETTINGS')), true);
$config = [
    'baseurlpath' => $told['home'],
    'certdir' => $told['folder'],
    'loggingdir' => $told['folder'],
    'datadir' => $told['folder'],
    'tempdir' => "{$told['folder']}/temp",
    'metadatadir' => __DIR__ . '/metadata/',
    'attributenamemapdir' => "{$told['folder']}/",
    'secretsalt' => 'of a test alone',
    'auth.adminpassword' => 'nobody signs in as this: 7f3c',
    'technicalcontact_email' => 'it@acme.example',
    'admin.checkforupdates' => false,
    'timezone' => 'UTC',
    'language.default' => 'en',
    'logging.handler' => 'file',
    'logging.level' => SimpleSAML\Logger::INFO,
    'statistics.out' => [],
    'enable.saml20-idp' => true,
    'module.enable' => ['exampleauth' => true, 'core' => true, 'saml' => true],
    'store.type' => 'phpsession',
    'session.cookie.secure' => false,
    'session.phpsession.savepath' => "{$told['folder']}/sessions",
    'metadata.sources' => [['type' => 'flatfile'], ['type' => 'xml', 'file' => "{$told['folder']}/platform.xml"]],
];
