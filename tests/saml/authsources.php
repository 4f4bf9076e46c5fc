<?php
// Its people: whatever the password is 'any'.
$told = json_decode(file_get_contents(getenv('SAML_SETTINGS')), true);
$config = ['people' => ['exampleauth:UserPass']];
foreach ($told['people'] as $login => $attributes) {
    $config['people']["$login:any"] = ['uid' => [$login]] + $attributes;
}
